"""The launcher behind `make run`: starts everything that a serving system needs, watches it, and stops it together.

It manages the processes and what they need before they start: data folder, lock, port, key, Redis. It imports only the
standard library, `broadcast.base` and `broadcast.config`, so it starts fast and holds no state worth losing. In
production a process supervisor and `gunicorn -c gunicorn.conf.py wsgi:app` replace it.
"""
