"""The sources that `ganinv export --to nvidia-pkl` writes into its files (`nvidia_pickle.py`)."""
