"""Static files under names that carry their content's hash (`core/app.css?v=…`), which browsers keep for ever.

Only the content with that hash may stand under such a name. While nodes are upgraded one after the other, a page of one
asks another for its files; answered with what that node has, the wrong script would stay in the browser for a year. So it
answers 404, and the page waits until a node has the file (`static/core/recover.js`).
"""

import hashlib
from pathlib import Path

from flask import Flask, Response, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.utils import safe_join

_ONE_YEAR_SECONDS = 31_536_000
_HASH_DIGITS = 12  # of the hash, in an address


class AssetHashes:
    """The hashes of the files in one folder. A file that changes on the disk is read again."""

    def __init__(self, folder: str):
        self._folder = folder
        self._hash_cache: dict[str, tuple[int, int, str]] = {}  # by name: when it was changed, its size, its hash

    def get_hash(self, name: str) -> str | None:
        """The hash that stands in the file's address; None when there is no such file."""
        path = safe_join(self._folder, name)
        try:
            file_stat = Path(path).stat() if path else None
            if file_stat is None:
                return None
            modified_ns, size, digest = self._hash_cache.get(name, (0, 0, ""))
            if (modified_ns, size) != (file_stat.st_mtime_ns, file_stat.st_size):
                digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:_HASH_DIGITS]
                self._hash_cache[name] = file_stat.st_mtime_ns, file_stat.st_size, digest
        except (OSError, ValueError):  # a folder, or a name that no file can have
            return None
        return digest

    def build_url(self, name: str) -> str:
        """For templates: the address of a file. Of one that is gone too, say because the code is being replaced just now: a
        page without one of its scripts is better than none.
        """
        return url_for("static", filename=name, v=self.get_hash(name) or "missing")


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
