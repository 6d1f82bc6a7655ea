"""For gunicorn: `gunicorn -c gunicorn.conf.py wsgi:app`. No monkey patching here: the gevent worker does it before."""

from broadcast.base import private_files
from broadcast.config.settings import Settings
from broadcast.factory import create_app

settings = Settings.load()
private_files.restrict_permissions(settings.data_dir, settings.database_path)
app = create_app(settings)
