"""The parts shared by both kinds of index: manifest, image tables, commits, additions, search."""
