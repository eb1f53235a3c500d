"""The space-time transformer with flow matching: Wan 2.1 and 2.2, and smaller ones to be trained from scratch."""
