"""The console's pages about broadcasts: list, compose, review, detail, revisions."""
