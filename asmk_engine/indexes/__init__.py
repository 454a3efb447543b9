"""The parts shared by all kinds of index: manifest, image tables, commits, additions, search."""
