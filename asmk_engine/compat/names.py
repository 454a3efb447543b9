"""What the original is called, and which modules it has."""

NAME = "asmk"
MODULES = ("asmk_method", "codebook", "functional", "hamming", "index", "inverted_file", "io_helpers", "kernel")
