"""Packages that gunicorn's master has loaded before forking hold no reference to what gevent replaces in the worker.

The standard library is excluded: gevent patches its modules in place.
"""

import json
import os
import shutil
import subprocess
import sys
import zlib

from tests.support.system import PROJECT_ROOT

# In a process of its own, as the master is not patched and a worker is: what was loaded by `gunicorn.conf.py`, and for each
# module what it still has of the library as it was before.
_LOOK = """
import json, runpy, sys, threading
import gunicorn.arbiter
locks = (type(threading.Lock()), type(threading.RLock()))
before = set(sys.modules)
runpy.run_path("gunicorn.conf.py")
loaded = [name for name in sys.modules if name not in before and name.partition(".")[0] not in sys.stdlib_module_names]
from gevent import monkey
monkey.patch_all()
old = {id(thing) for names in monkey.saved.values() for thing in names.values() if callable(thing)}

def kept(thing):
    bases = thing.__mro__[1:] if isinstance(thing, type) else ()
    return id(thing) in old or isinstance(thing, locks) or any(id(base) in old for base in bases)

found = []
for name in loaded:
    for key, thing in list(vars(sys.modules[name]).items()):
        found += [f"{name}.{key}"] if kept(thing) else []
        if isinstance(thing, type) and thing.__module__ == name:
            found += [f"{name}.{key}.{inner}" for inner, part in list(vars(thing).items()) if kept(part)]
print(json.dumps({"loaded": loaded, "kept": found}))
"""
# Locks that nobody holds while another greenlet runs, as they guard a few lines that wait for nothing; and what nobody calls.
_HARMLESS = {
    "alembic.util.editor.check_call",
    "pydantic.main._rebuild_lock",
    "sqlalchemy.dialects.sqlite.aiosqlite.Thread",
    "sqlalchemy.orm.collections.__instrumentation_mutex",
    "sqlalchemy.orm.mapper._CONFIGURE_MUTEX",
    "sqlalchemy.sql.lambdas.AnalyzedCode._generation_mutex",
    "sqlalchemy.util.langhelpers.symbol._lock",
}


def test_what_the_master_loads_keeps_nothing_that_gevent_replaces(tmp_path):
    environ = os.environ | {"DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _LOOK], cwd=PROJECT_ROOT, env=environ, capture_output=True, text=True, timeout=60
    )
    shutil.rmtree(f"/dev/shm/broadcast-{os.getuid()}-{zlib.crc32(bytes(tmp_path)):08x}", ignore_errors=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"sqlalchemy.orm", "pydantic.main", "markdown_it"} <= set(found["loaded"])
    assert set(found["kept"]) == _HARMLESS
    assert not {"redis", "psycopg", "flask", "kafka"} & {name.partition(".")[0] for name in found["loaded"]}
    ours = {name for name in found["loaded"] if name.partition(".")[0] == "broadcast"}
    assert ours == {
        "broadcast",
        "broadcast.base",
        "broadcast.base.numbers",
        "broadcast.worker",
        "broadcast.worker.readiness",
    }
