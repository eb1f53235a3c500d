"""Writing clips: as h264 in memory, and as members of a tar."""
