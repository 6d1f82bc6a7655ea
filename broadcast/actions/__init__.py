"""The verbs. Each checks who acts, writes state, log and audit in one transaction, and rings the bus after the commit.

The only writers of broadcasts and the only callers of `log.measure_appends`. Every action runs inside an application context.
"""
