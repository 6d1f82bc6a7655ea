"""An inbox in another site's pages: its script and its tokens."""
