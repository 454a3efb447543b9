"""A search page and an HTTP API for indexes, on one port."""
