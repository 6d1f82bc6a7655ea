"""The rules of broadcasts: plain Python, standard library only, no I/O."""
