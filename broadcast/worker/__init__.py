"""A worker's lifecycle besides requests: readiness, background loops, shutdown."""
