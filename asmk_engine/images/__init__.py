"""Image files: listing, identification and decoding."""
