"""Shards of clips: schema, deterministic order, checked reading, decoding, and batches for training."""
