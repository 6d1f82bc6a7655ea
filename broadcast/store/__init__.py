"""The database: models, the log, and queries with names. SQLAlchemy is imported here and nowhere else.

Reading and writing both happen inside an application context; `database.write_transaction()` is the only way to write.
"""
