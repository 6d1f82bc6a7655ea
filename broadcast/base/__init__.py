"""Leaf modules that every package may import: errors, yielding to other greenlets, correlation ids, private files."""
