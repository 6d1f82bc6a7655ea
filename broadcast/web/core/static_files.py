"""Static files with their content's hash in the URL (`core/app.css?v=…`), cached by browsers for a year.

A URL must only return the content with its hash. During a rolling upgrade a page of one node asks another node for its
files, and a wrong script would stay in the browser for a year. So other hashes get 404, and the page waits until a node
has the file (`static/core/recover.js`).

Text is compressed once and kept, so that a deployment without a proxy is quick too. Pages, which differ each time, are
left to a proxy: compressing one would take as long as rendering it.
"""

import gzip
import hashlib
import mimetypes
import os
from functools import lru_cache, partial
from pathlib import Path

import gevent
from flask import Flask, Response, request
from markupsafe import Markup
from werkzeug.exceptions import NotFound
from werkzeug.utils import safe_join

_ONE_YEAR_SECONDS = 31_536_000
_HASH_DIGITS = 12  # of the hash in a URL
_MAX_CACHED_PATHS = 1000
_COMPRESSED_SUFFIXES = {".css", ".js", ".svg"}


class StaticFiles:
    """The hashes and compressed contents of the files in one folder. A file that changes on the disk is read again."""

    def __init__(self, folder: str):
        self._folder = folder
        self._find_path = lru_cache(_MAX_CACHED_PATHS)(partial(safe_join, folder))
        self._compressed: dict[str, tuple[str, bytes]] = {}  # by name: hash, content
        self._hash_cache: dict[str, tuple[int, int, str]] = {}  # by name: mtime in ns, size, hash

    def get_hash(self, name: str) -> str | None:
        """The hash for the file's URL; None when there is no such file."""
        path = self._find_path(name)
        try:
            file_stat = os.stat(path) if path else None  # Path.stat takes twice as long
            if file_stat is None:
                return None
            modified_ns, size, digest = self._hash_cache.get(name, (0, 0, ""))
            if (modified_ns, size) != (file_stat.st_mtime_ns, file_stat.st_size):
                digest = _hash_content(Path(path).read_bytes())
                self._hash_cache[name] = file_stat.st_mtime_ns, file_stat.st_size, digest
        except (OSError, ValueError):  # a folder, or an invalid name
            return None
        return digest

    def get_compressed(self, name: str) -> bytes | None:
        """The content in gzip; None if there is no such file, or no text in it. Lets other greenlets run."""
        digest = self.get_hash(name) if Path(name).suffix in _COMPRESSED_SUFFIXES else None
        if digest is None:
            return None
        if self._compressed.get(name, ("",))[0] != digest:
            content = Path(self._folder, name).read_bytes()
            if _hash_content(content) != digest:  # replaced since
                return None
            compressed = gevent.get_hub().threadpool.apply(gzip.compress, (content,), {"mtime": 0})
            self._compressed[name] = digest, compressed
        return self._compressed[name][1]

    def build_url(self, name: str) -> str:
        """For templates: the URL of a file. A missing file gets one too, as the code may be in replacement: a page
        without one of its scripts is better than none.
        """
        return f"/static/{name}?v={self.get_hash(name) or 'missing'}"  # `url_for` takes ten times as long

    def build_script_tags(self, *names: str) -> Markup:
        """For templates: the elements that load these scripts, in this order, once the page has been read."""
        return Markup("\n  ".join([f'<script defer src="{self.build_url(name)}"></script>' for name in names]))


def _hash_content(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_HASH_DIGITS]


def init_app(app: Flask) -> None:
    files = StaticFiles(app.static_folder)
    app.jinja_env.globals.update(asset=files.build_url, scripts=files.build_script_tags)

    @app.before_request
    def _reject_other_versions() -> None:
        if request.endpoint == "static" and "v" in request.args and not _is_requested_version(files):
            raise NotFound("This file belongs to another version.")

    @app.before_request
    def _send_compressed() -> Response | None:
        may_send = request.endpoint == "static" and request.accept_encodings["gzip"] > 0 and not request.range
        content = files.get_compressed(request.view_args["filename"]) if may_send else None
        if content is None:
            return None
        response = Response(content, mimetype=mimetypes.guess_type(request.path)[0])
        response.content_encoding = "gzip"
        response.set_etag(f"{files.get_hash(request.view_args['filename'])}-gzip")
        return response.make_conditional(request)

    @app.after_request
    def _set_cache_control(response: Response) -> Response:
        if request.endpoint == "static":
            response.headers["Cache-Control"] = _choose_cache_control(response, files)
            response.vary.add("Accept-Encoding")
        return response


def _is_requested_version(files: StaticFiles) -> bool:
    return request.args.getlist("v") == [files.get_hash(request.view_args["filename"])]


def _choose_cache_control(response: Response, files: StaticFiles) -> str:
    if response.status_code not in (200, 206, 304):
        return "no-store"
    if "v" not in request.args:
        return "public, max-age=300"
    return f"public, max-age={_ONE_YEAR_SECONDS}, immutable" if _is_requested_version(files) else "no-store"
