"""What leaves ganinv and what comes back: bundles, the official checkpoints, graphs."""
