"""What happens around the training step: saving, stopping, logging, progress and sample videos."""
