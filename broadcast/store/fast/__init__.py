"""Code paths too hot for the ORM: prepared queries, bulk inserts, caches and write-behind buffers."""
