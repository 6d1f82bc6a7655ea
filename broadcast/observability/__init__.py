"""What operators see of a running system: Prometheus metrics, gauges and OpenTelemetry spans."""
