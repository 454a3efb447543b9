"""Evaluation of rankings: ground truths, ranking files, protocols and metrics.

metrics       average precision and precision at k, as functions of ranks only
bootstrap     confidence interval of a mean over queries
model         a ground truth, independent of its file format
ground_truth  its files: JSON and pickles (never executed); `oxford` folders of text files, `landmarks` CSVs
names         matching the names of a ground truth to the names of indexed images
runs          ranking files: TREC runs, JSON lines, image pairs, submissions; `ranks` the array of image numbers
protocol      rankings + ground truth → a report
classifiers   rankings + labels → the label of a query image; `recognition` evaluates the labels
"""
