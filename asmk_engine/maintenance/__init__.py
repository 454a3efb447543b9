"""Looking after an index: checking, repair, and what is in it."""
