"""Searching an index of any kind: opening it, the features of queries, evaluation, fusion of answers."""
