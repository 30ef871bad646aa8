"""Floor 1: feature networks, their weights found by path or cache and never random in silence."""
