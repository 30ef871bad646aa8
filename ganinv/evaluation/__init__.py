"""Floor 7: from any file to a model, from a model to a table and a report."""
