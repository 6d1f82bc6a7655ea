"""Reaching people who have no page open: escalation, the outbox, and the channels it sends by."""
