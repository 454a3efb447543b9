"""Reading of published pickles without executing anything in them."""
