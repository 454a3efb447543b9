"""The ASMK index: signatures, postings in segments, and their search."""
