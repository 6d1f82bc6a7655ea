"""Inbound events: the contract, the rules of each source, the Kafka bridge."""
