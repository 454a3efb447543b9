"""Sharded indexes: the images of one collection in several indexes by their names, which change and answer as one."""
