"""ganinv: distributed training of GAN-inversion encoders on frozen StyleGANs."""

__version__ = "0.1.0.dev0"
