"""Maintenance of an index: checking, repair and description."""
