"""Floor 2: encoders, from an image to latent codes or to a feature map f."""
