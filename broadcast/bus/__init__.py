"""The doorbell between workers. It says that there is something to read; it never carries what is read."""
