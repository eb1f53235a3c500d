"""Shot detectors, which find the cuts and transitions of a video."""
