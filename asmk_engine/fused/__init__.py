"""Indexes of several kinds of features: one table of images, and for each kind postings or vectors of its own."""
