"""The stages of curation, each from manifest rows to manifest rows."""
