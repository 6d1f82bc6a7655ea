"""The systemd unit as an operator sets it up: the steps in its header create what the unit uses."""

import re
import secrets

from broadcast.config.settings import Settings
from tests.integration.deploy.test_config_files import DEPLOY
from tests.support.system import PROJECT_ROOT

TEXT = (DEPLOY / "broadcast.service").read_text()
HEADER = re.sub(r"^# ?", "", TEXT.partition("[Unit]")[0], flags=re.M)
UNIT = dict(re.findall(r"^(\w+)=(.*)$", TEXT, re.M))


def test_header_makes_the_user_the_folder_and_the_settings_that_the_unit_names():
    assert re.search(rf"useradd --system .*\b{UNIT['User']}$", HEADER, re.M)
    assert f"{UNIT['WorkingDirectory']} && cd {UNIT['WorkingDirectory']} && python3 -m venv .venv" in HEADER
    assert f"> {UNIT['EnvironmentFile']})" in HEADER
    assert UNIT["ExecStart"].startswith(f"{UNIT['WorkingDirectory']}/.venv/bin/python -m gunicorn -c gunicorn.conf.py")
    assert f"DATA_DIR=/var/lib/{UNIT['StateDirectory']} " in UNIT["Environment"]
    for name in re.findall(r"-r (\S+)", HEADER):
        assert (PROJECT_ROOT / name).exists()


def test_environment_of_the_header_starts_in_production():
    said = re.search(r'echo "(.*?)"', HEADER, re.S)[1].replace("$(openssl rand -hex 32)", secrets.token_hex(32))
    given = dict(line.strip().split("=", 1) for line in said.splitlines())
    settings = Settings.load(given | {"DATA_DIR": "/var/lib/broadcast"})
    assert settings.is_production
    assert settings.trusted_hosts == ["broadcast.example.org"]
    assert settings.misspelling_warnings == []


def test_unit_waits_for_a_worker_that_serves_and_reloads_only_what_can_be_read():
    assert (UNIT["Type"], UNIT["NotifyAccess"]) == ("notify", "all")
    reloads = re.findall(r"^ExecReload=(.*)$", TEXT, re.M)
    assert "check-rules" in reloads[0]
    assert reloads[-1] == "/bin/kill -HUP $MAINPID"
    assert UNIT["ExecStartPre"].endswith("flask --app app db upgrade")
