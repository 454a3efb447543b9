"""Searching an index of any kind: opening it, the features of queries, fusion of answers."""
