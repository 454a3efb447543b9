"""Reproduction of published results: one experiment for each row of a table, and the stages that run it.

    experiment ──files──▶ required files, and where they are published
         └──────stages──▶ network, codebook or codec, database, index, queries, search ──report──▶ published, measured

A rehearsal runs the same stages on any small set of images with a ground truth.
"""
