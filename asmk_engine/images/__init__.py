"""Photographs: where they come from, which there are, and their pixels."""
