"""Import and export of published weights: exact, one tensor at a time, and never as pickles."""
