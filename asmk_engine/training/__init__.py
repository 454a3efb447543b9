"""Training: whitening from photographs, pairs and tuples, losses, hard negatives, and the loops that run them."""
