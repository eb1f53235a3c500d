"""The training step, its optimizer and averages, and what happens around it."""
