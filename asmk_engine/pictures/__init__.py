"""Contact sheets, pictures of search results."""
