"""Failpoints are outside the product, and a production system does not start with them."""

import os
import subprocess
import sys

from tests.support.system import PROJECT_ROOT

_POINTS = {"PYTHONPATH": str(PROJECT_ROOT / "tests/support/failpoints"), "FAILPOINTS": "/nonexistent"}


def start(**environ: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", "print('started')"], env=os.environ | environ, capture_output=True, text=True, timeout=60
    )


def test_production_refuses_failpoints():
    refused = start(**_POINTS, APP_ENV="production")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "FAILPOINTS: for tests only" in refused.stderr


def test_elsewhere_they_are_armed():
    assert start(**_POINTS).stdout == "started\n"


def test_product_has_no_failpoint():
    files = [
        *(PROJECT_ROOT / "broadcast").rglob("*.py"),
        PROJECT_ROOT / "gunicorn.conf.py",
        PROJECT_ROOT / "wsgi.py",
        PROJECT_ROOT / "app.py",
    ]
    assert [path for path in files if "failpoint" in path.read_text().lower()] == []
