"""A worker's life beside its requests: when it may serve, when it may leave."""
