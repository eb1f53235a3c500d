"""Scores of clips, by which curation filters them; each score is a class named in conf/filter."""
