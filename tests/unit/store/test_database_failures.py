"""An unreachable database is reported with advice, whatever the driver's error."""

import pytest
from sqlalchemy.engine import make_url

from broadcast.store.availability import describe_failure

ONE = make_url("postgresql+psycopg://ann:secret@db.example:5433/news")
SEVERAL = make_url("postgresql+psycopg://ann:secret@/news?host=one,two&port=5432,5433")
FILE = make_url("sqlite:////var/lib/broadcast/broadcast.sqlite3")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ('connection failed: … FATAL:  database "news" does not exist', "createdb -h db.example -p 5433 -U postgres -E UTF8"),
        ('FATAL:  password authentication failed for user "ann"', 'refuses the user "ann" or the password'),
        ('FATAL:  role "ann" does not exist', 'refuses the user "ann"'),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', "pg_hba.conf"),
        ("FATAL:  sorry, too many clients already", "DATABASE_POOL_SIZE"),
        ("failed to resolve host 'db.example': [Errno -2] Name or service not known", "check the DNS"),
        ("server does not support SSL, but SSL was required", "sslmode"),
        ("failed: Connection refused\n\tIs the server running?", "No database server listens at db.example:5433."),
        ("connection timeout expired", "no firewall is in between"),
        ("FATAL:  the database system is starting up", "starting or stopping"),
        ("cannot execute UPDATE in a read-only transaction", "Name the primary"),
        ("something of tomorrow", "something of tomorrow."),
    ],
)  # fmt: skip
def test_reason_of_the_driver_becomes_a_sentence_with_what_to_do(words: str, says: str):
    told = describe_failure(Exception(words), ONE)
    assert says in told.operator
    for word in ("Errno", "secret", "FATAL"):
        assert word not in told.operator
    for word in ("db.example", '"ann"', "news", "tomorrow"):
        assert word not in told.public, "readyz tells everybody"


def test_every_server_of_several_is_named():
    told = describe_failure(Exception("connection failed: session is read-only"), SEVERAL)
    assert "(one:5432, two:5433) takes writes" in told.operator
    refused = (
        'connection to server at "one" failed: Connection refused; at "two": FATAL:  database "news" does not exist'
    )
    assert (
        'The database "news" does not exist on one:5432, two:5433.'
        in describe_failure(Exception(refused), SEVERAL).operator
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("unable to open database file", "Make its folder"),
        ("file is not a database", "Restore a backup"),
        ("database is locked", "Another program holds"),
        ("disk I/O error", "cannot be used: disk I/O error."),
    ],
)
def test_file_is_named_to_operators_only(words: str, says: str):
    told = describe_failure(Exception(words), FILE)
    assert says in told.operator
    assert "/var/lib/broadcast/broadcast.sqlite3" in told.operator
    assert "/var" not in told.public
