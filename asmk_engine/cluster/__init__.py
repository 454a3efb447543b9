"""Extraction, training, building and search on a Ray cluster; the only folder that imports Ray.

The work itself is done by the same functions as on one machine: this folder only carries it to other processes, and
does again what was lost with one of them.
"""
