"""Import and export of the file formats of other programs."""
