"""For gunicorn: `gunicorn -c gunicorn.conf.py wsgi:app`. No monkey patching: the gevent worker has done it before."""

from broadcast.factory import create_app

app = create_app()
