"""How good a ranking is: ground truths, ranking files, protocols and metrics.

metrics      average precision and precision at k, functions of ranks alone
bootstrap    how far a mean over queries can be trusted
model        a ground truth in one form
truth        the files it comes in: JSON and pickles (never run); `oxford` a folder of text files, `landmarks` CSVs
names        how the names of a ground truth are found among the indexed ones
runs         ranking files: TREC runs, JSON lines, image pairs, submissions; `ranks` the array of numbers
protocol     rankings + truth → a report
classifiers  rankings + labels → the label of a photograph; `recognition` evaluates them
"""
