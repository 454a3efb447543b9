"""Search in an index of any kind: opening, features of queries, evaluation, fusion of rankings."""
