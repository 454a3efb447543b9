"""A folder for the path of imports: `faiss` is found in it, where it is not installed, and nothing else."""
