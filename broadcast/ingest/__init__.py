"""Events from outside: the contract that reads them, the rules of each source, the bridge from Kafka."""
