"""Use cases. Each checks permissions, writes state, log and audit in one transaction, and then notifies the workers.

The only writers of broadcasts and the only callers of `log.append`. Every action runs inside an application context.
"""
