"""Models that say what is to be seen in a clip."""
