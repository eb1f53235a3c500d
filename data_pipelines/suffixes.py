"""What the suffix of a file says of its content."""

# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".3g2", ".3gp", ".apng", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc",
    ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg",
    ".mpg", ".mts", ".mxf", ".nut", ".obu", ".ogg", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm",
    ".wmv", ".y4m",
])
# fmt: on
"""A file so named must be a video: it gives clips or is listed as a fault. Others are looked into."""

# fmt: off
OTHER_SUFFIXES = frozenset([
    ".bmp", ".csv", ".db", ".htm", ".html", ".ini", ".jpeg", ".jpg", ".json", ".jsonl", ".log", ".md", ".ndjson",
    ".npy", ".npz", ".parquet", ".pdf", ".png", ".py", ".srt", ".svg", ".tar", ".tif", ".tiff", ".tsv", ".txt", ".vtt",
    ".webp", ".xml", ".yaml", ".yml", ".zip",
])
# fmt: on
"""Not looked into, as FFmpeg takes text for a film of letters and a picture for a film of one frame."""
