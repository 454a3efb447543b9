"""Pickles of published ground truths, read without executing anything in them."""
