"""Floor 0: names, ranges, errors, seeds, safe files and the operators of StyleGAN."""
