"""Durable folders and files, and readers of HDF5 and pickle files from untrusted sources."""
