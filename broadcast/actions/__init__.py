"""Use cases. Each checks permissions, writes state, log and audit in one transaction, and then notifies the workers.

The only writers of broadcasts and the only callers of `log.append`. Every action runs inside an application context. It
raises Forbidden unless `by` may do it, and TemporarilyUnavailable when the database is locked or down; each docstring
names the other errors.
"""
