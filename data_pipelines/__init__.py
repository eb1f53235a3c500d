"""From folders of videos to shards of training clips: list, decode, cut, encode, write, verify."""
