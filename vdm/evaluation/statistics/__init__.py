"""Statistics of descriptions of clips: distances between two sets, and scores of one."""
