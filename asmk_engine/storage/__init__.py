"""What lasts on the disk, and the doors through which files of strangers come in."""
