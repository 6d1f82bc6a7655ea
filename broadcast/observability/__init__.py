"""Observability: Prometheus metrics, gauges and OpenTelemetry spans."""
