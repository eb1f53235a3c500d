"""What is measured of clips, so that limits can be put on it; each score is a class named in conf/filter."""
