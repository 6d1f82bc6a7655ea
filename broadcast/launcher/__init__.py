"""What `make run` runs: everything a serving system needs, started in order, watched, and ended together.

Here live the processes and what they need before they start: folder, lock, port, key, Redis. What the application
does is elsewhere; this room imports the standard library and `broadcast.config.settings` only, so that it starts fast and
holds no state worth losing. In production a process supervisor and `gunicorn -c gunicorn.conf.py wsgi:app` take its
place.
"""
