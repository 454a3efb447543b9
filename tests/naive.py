"""Slow, obvious twins of the public functions, written from the papers with loops and sets.

They are the oracle of the property tests; nothing here is clever and nothing here is imported by the engine.
"""
