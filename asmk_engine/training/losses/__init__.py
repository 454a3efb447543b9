"""The losses of trainings, one a file."""
