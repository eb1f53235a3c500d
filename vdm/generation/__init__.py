"""From prompts to videos: the whole model, its building from a configuration or checkpoint, and files."""
