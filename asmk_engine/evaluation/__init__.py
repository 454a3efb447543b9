"""How good a ranking is: ground truths, ranking files, protocols and metrics.

    metrics    average precision and precision at k, functions of ranks alone
    truth      ground truths in one form, and how their names are found among the indexed ones
    runs       ranking files: TREC runs, JSON lines, image pairs
    protocol   rankings + truth → a report of Easy, Medium and Hard
    unpickle   the published ground truths are pickles: read without running anything in them
"""
