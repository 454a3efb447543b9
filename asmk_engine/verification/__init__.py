"""Verification: whether and where two images show the same thing, from the places of their features."""
