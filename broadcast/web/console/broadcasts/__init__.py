"""The console's pages about broadcasts: the list, composing, review, one broadcast, its revisions."""
