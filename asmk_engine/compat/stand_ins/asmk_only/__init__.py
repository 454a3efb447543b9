"""A folder for the path of imports: `asmk` is found in it, and nothing else."""
