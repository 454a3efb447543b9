"""Networks that score pairs of images."""
