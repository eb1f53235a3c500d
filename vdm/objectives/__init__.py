"""What is minimized: from clips to a loss per clip."""
