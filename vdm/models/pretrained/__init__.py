"""Weights that others publish, in and out: exact, streamed, and never as pickles."""
