"""A user's inbox: pages, actions on messages, preferences."""
