"""The bridge from Kafka: what brokers answer, record by record, into batches of inbound events."""
