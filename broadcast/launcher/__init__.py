"""The launcher behind `make run`: starts everything that a serving system needs, watches it, and stops it together.

It imports only the standard library, `broadcast.base` and `broadcast.config`, so it starts fast. In production a process
supervisor and `gunicorn -c gunicorn.conf.py wsgi:app` replace it.
"""
