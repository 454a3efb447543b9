"""What an index of any kind is made of: manifest, tables of images, commits, additions."""
