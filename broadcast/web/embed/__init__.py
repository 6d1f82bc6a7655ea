"""The inbox embedded in another site's pages: script and tokens."""
