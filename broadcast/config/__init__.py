"""Settings from the environment, read and checked before anything else runs."""
