"""The Kafka bridge: from a broker's bytes, record by record, to batches of inbound events."""
