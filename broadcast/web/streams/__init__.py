"""The two stream endpoints. A request takes one of two paths to the same hub: Flask's (`views`), or, if the worker
recognizes it by its first bytes, one before WSGI (`direct`).
"""
