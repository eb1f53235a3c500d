"""Training objectives: from a batch of clips to a loss per clip."""
