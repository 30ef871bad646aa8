"""Images: shards on disk, their exact order, the data modules, and the drawn built-in domain."""
