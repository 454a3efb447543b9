"""From an image to local features: one small file for each extractor, one protocol for all."""
