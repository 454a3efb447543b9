"""Re-ranking by a score of pairs: the first images of a ranking are compared with the query one by one.

`pair_scorer` is what compares, `ranking` applies it to a ranking, `evaluation` to all queries of a ground truth.
"""
