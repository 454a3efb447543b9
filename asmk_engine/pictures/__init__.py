"""Pictures of what a search found."""
