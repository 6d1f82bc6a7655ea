"""What a broadcast is and may do: plain Python, the standard library only, no input or output."""
