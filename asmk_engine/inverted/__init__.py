"""The ASMK index: signatures, segments of postings, and search."""
