"""Text-to-video of ModelScope, and of Zeroscope, which is tuned from it."""
