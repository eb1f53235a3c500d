"""The stages of curation; most take manifest rows and return manifest rows."""
