"""From photographs to a feature set: attempts at single images, processes that make them, and runs."""
