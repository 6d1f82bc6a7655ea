"""The database: models, the log, and named queries. SQLAlchemy is imported only here (elsewhere its errors and
`Session`).

Reads and writes both need an application context; `transactions.write_transaction()` is the only way to write.
"""
