"""A site that embeds inboxes: `BROADCAST_URL=… BROADCAST_TOKEN=… python docs/embed/server.py 5000`. Needs no packages."""

import json
import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE, URL, KEY = Path(__file__).parent, os.environ["BROADCAST_URL"], os.environ["BROADCAST_TOKEN"]
FILES = {"/": ("index.html", "text/html; charset=utf-8"), "/page.css": ("page.css", "text/css")}
POLICY = f"default-src 'none'; style-src 'self'; script-src {URL}; connect-src 'self' {URL}; require-trusted-types-for 'script'"


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        name, kind = FILES.get(self.path, ("", ""))
        text = (HERE / name).read_text().replace("BROADCAST_URL", URL) if name else "Not here"
        self._answer(200 if name else 404, text.encode(), kind or "text/plain")

    def do_POST(self):
        """The address that `token-url` names. Say for whom by your own session; never let the page choose."""
        user, origin = "bob", f"http://{self.headers['Host']}"
        body = json.dumps({"username": user, "origin": origin}).encode()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{URL}/api/embed/tokens", body, headers)
        try:
            with urllib.request.urlopen(request) as answer:
                self._answer(200, answer.read(), "application/json")
        except OSError as problem:
            self._answer(502, str(problem).encode(), "text/plain")

    def _answer(self, status, data, kind):
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Site).serve_forever()
