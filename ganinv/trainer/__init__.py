"""Floor 7: Lightning: strategy, precision, checkpoints, callbacks, loggers."""
