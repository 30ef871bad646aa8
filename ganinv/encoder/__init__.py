"""Floor 2: encoders, image -> latent codes as offsets from w_avg."""
