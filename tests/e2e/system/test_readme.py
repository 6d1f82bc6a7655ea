"""The commands of the README, run from top to bottom in one shell."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.support.system import PROJECT_ROOT, System

pytestmark = [
    pytest.mark.service,
    pytest.mark.alike,
    pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed: apt-get install curl"),
]
_TOO_LATE = 28  # how curl says that it was to end


def test_commands_that_send_and_listen_do_what_is_said_of_them(system: System):
    section = (PROJECT_ROOT / "README.md").read_text().partition("## Send the first one")[2].partition("\n## ")[0]
    commands = "\n".join(re.findall(r"```sh\n(.+?)```", section, re.S))
    assert commands.count("curl") == 3
    commands = commands.replace("curl -N", "curl -N --max-time 2").replace("curl ", "curl --silent --fail-with-body ")
    commands = commands.replace("http://127.0.0.1:8000", system.url).replace(
        ".venv/bin/flask", f"{sys.executable} -m flask"
    )
    done = subprocess.run(
        ["sh", "-ec", commands],
        cwd=PROJECT_ROOT,
        env=system.build_command_environ(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == _TOO_LATE, done.stdout + done.stderr
    heard = done.stdout.partition("event: MESSAGE")[2]
    assert "Coffee is ready" in heard
    assert "Line 4 stands still" in heard
    assert "event: CONNECTED" in heard
