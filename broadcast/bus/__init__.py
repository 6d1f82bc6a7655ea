"""Notification between workers. It says that there is something to read, and never carries the data itself."""
