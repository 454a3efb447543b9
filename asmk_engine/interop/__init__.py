"""Reading and writing what other programs exchange."""
