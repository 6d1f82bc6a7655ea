"""State machines of hypothesis that act on an application of their own."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from broadcast.config.settings import Settings
from broadcast.factory import create_app
from broadcast.store import log
from broadcast.store.database import db
from broadcast.streams.hub import HUB
from tests.support.compilation_cache import TemplateCache


class AppStateMachine(RuleBasedStateMachine):
    """Each run begins with `app` on a copy of the SQLite file `database`; its hub is at the head of the log."""

    database: Path
    compiled: TemplateCache
    changed_settings: dict[str, Any] = {}

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.database, self.folder)
        given = {"app_env": "test", "data_dir": self.folder, "secret_key": "k" * 40, "ratelimit_enabled": False}
        self.app = create_app(Settings(**given, log_level="error", **self.changed_settings))
        self.app.jinja_env.bytecode_cache = self.compiled
        with self.app.app_context():
            HUB.of(self.app).start(log.get_head())

    def teardown(self) -> None:
        with self.app.app_context():
            db.session.remove()
            db.engine.dispose()
        shutil.rmtree(self.folder)


def run_state_machine(machine: type[AppStateMachine], request: pytest.FixtureRequest, **limits: Any) -> None:
    """Run it on a database with the test users. `limits` are hypothesis's settings (`max_examples`)."""
    if request.getfixturevalue("server_database"):
        pytest.skip("each run needs an empty database; the queries on PostgreSQL have tests of their own")
    fixtures = {"database": request.getfixturevalue("populated").path, "compiled": request.getfixturevalue("compiled")}
    given = {"deadline": None, "suppress_health_check": list(HealthCheck)} | limits
    run_state_machine_as_test(type("Run", (machine,), fixtures), settings=settings(**given))
