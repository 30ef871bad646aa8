"""Floor 5: everything about running a method: processes, precision, checkpoints, logs."""
