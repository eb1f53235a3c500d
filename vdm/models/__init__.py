"""Networks, and what turns pixels, captions, classes and first frames into what they take."""
