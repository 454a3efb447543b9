"""Training: whitening learned from images, pairs and tuples, losses, hard negatives, and the training loop."""
