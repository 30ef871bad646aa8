"""Floor 2: how good a reconstruction or a generator is, and how that is shown."""
