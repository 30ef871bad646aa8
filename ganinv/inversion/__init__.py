"""Floor 3: from an image to its latent code, one file a method."""
