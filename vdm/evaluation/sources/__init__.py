"""Sources of clips that metrics look at: folders of videos, shard sets, and a model that samples them."""
