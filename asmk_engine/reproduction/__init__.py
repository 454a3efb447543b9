"""Published results, made again: a small recipe for each row of a table, and what runs it.

    recipe ──files──▶ what is needed, and where it is published
       └────stages──▶ network, codebook or codec, database, index, queries, search ──report──▶ published beside measured

A rehearsal runs the same stages on any small set of photographs with a ground truth.
"""
