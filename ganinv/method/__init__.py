"""Floor 4: one file a training method; what no paper mentions is in `base.py`."""
