"""Extraction of feature sets from images: attempts at single images, worker processes, and runs."""
