"""The inbox of one user: its pages, what is done with messages, preferences."""
