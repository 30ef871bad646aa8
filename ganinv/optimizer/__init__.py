"""Floor 1: optimizers that torch does not have."""
