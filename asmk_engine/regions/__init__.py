"""Regions of images: boxes from files, from a grid or from maps of attention, and how an index uses them."""
