"""Training: the step, its optimizer, EMA weights, callbacks and strategies."""
