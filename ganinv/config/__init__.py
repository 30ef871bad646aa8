"""Floor 5: from a config to the objects it names; with the entry points and cli, Hydra's place."""
