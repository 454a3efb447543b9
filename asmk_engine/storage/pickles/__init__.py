"""Published pickles, read without executing anything in them."""
