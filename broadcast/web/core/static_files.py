"""Static files with their content's hash in the URL (`core/app.css?v=…`), cached by browsers for a year.

A URL must only return the content with its hash. During a rolling upgrade a page of one node asks another node for its
files, and a wrong script would stay in the browser for a year. So other hashes get 404, and the page waits until a node
has the file (`static/core/recover.js`).
"""

import hashlib
from pathlib import Path

from flask import Flask, Response, request
from werkzeug.exceptions import NotFound
from werkzeug.utils import safe_join

_ONE_YEAR_SECONDS = 31_536_000
_HASH_DIGITS = 12  # of the hash in a URL


class AssetHashes:
    """The hashes of the files in one folder. A file that changes on the disk is read again."""

    def __init__(self, folder: str):
        self._folder = folder
        self._hash_cache: dict[str, tuple[int, int, str]] = {}  # by name: mtime in ns, size, hash

    def get_hash(self, name: str) -> str | None:
        """The hash for the file's URL; None when there is no such file."""
        path = safe_join(self._folder, name)
        try:
            file_stat = Path(path).stat() if path else None
            if file_stat is None:
                return None
            modified_ns, size, digest = self._hash_cache.get(name, (0, 0, ""))
            if (modified_ns, size) != (file_stat.st_mtime_ns, file_stat.st_size):
                digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:_HASH_DIGITS]
                self._hash_cache[name] = file_stat.st_mtime_ns, file_stat.st_size, digest
        except (OSError, ValueError):  # a folder, or an invalid name
            return None
        return digest

    def build_url(self, name: str) -> str:
        """For templates: the URL of a file. A missing file gets one too, as the code may be in replacement: a page
        without one of its scripts is better than none.
        """
        return f"/static/{name}?v={self.get_hash(name) or 'missing'}"  # `url_for` takes ten times as long


def init_app(app: Flask) -> None:
    assets = AssetHashes(app.static_folder)
    app.jinja_env.globals["asset"] = assets.build_url

    @app.before_request
    def _reject_other_versions() -> None:
        if request.endpoint == "static" and "v" in request.args and not _is_requested_version(assets):
            raise NotFound("This file belongs to another version.")

    @app.after_request
    def _set_cache_control(response: Response) -> Response:
        if request.endpoint == "static":
            response.headers["Cache-Control"] = _choose_cache_control(response, assets)
        return response


def _is_requested_version(assets: AssetHashes) -> bool:
    return request.args.getlist("v") == [assets.get_hash(request.view_args["filename"])]


def _choose_cache_control(response: Response, assets: AssetHashes) -> str:
    if response.status_code not in (200, 206, 304):
        return "no-store"
    if "v" not in request.args:
        return "public, max-age=300"
    return f"public, max-age={_ONE_YEAR_SECONDS}, immutable" if _is_requested_version(assets) else "no-store"
