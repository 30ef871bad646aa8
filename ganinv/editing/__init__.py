"""Floor 3: what is done to codes."""
