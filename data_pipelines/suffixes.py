"""Suffixes of files that are certainly videos, or certainly not."""

# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".3g2", ".3gp", ".apng", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc",
    ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg",
    ".mpg", ".mts", ".mxf", ".nut", ".obu", ".ogg", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm",
    ".wmv", ".y4m",
])
# fmt: on
"""A file with such a suffix gives clips, or is listed as a fault."""

# fmt: off
OTHER_SUFFIXES = frozenset([
    ".avif", ".avifs", ".bmp", ".csv", ".db", ".heic", ".heif", ".htm", ".html", ".ini", ".jpeg", ".jpg", ".json",
    ".jsonl", ".log", ".md", ".ndjson", ".npy", ".npz", ".parquet", ".pdf", ".png", ".py", ".srt", ".svg", ".tar",
    ".tif", ".tiff", ".tsv", ".txt", ".vtt", ".webp", ".xml", ".yaml", ".yml", ".zip",
])
# fmt: on
"""Files with such a suffix are passed over. FFmpeg would open a text as a film of letters, a picture as one frame.

Files with any other suffix are opened, to see whether they hold a video.
"""
