"""Settings: strict, read once, a hint for each problem."""

import secrets

import pytest
from pydantic import ValidationError

from broadcast.config.settings import RENAMED, Settings, SettingsError

KEY = "9f2c61d07be84a35c1f0e7d8362b94a5"


def refused(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    return str(caught.value)


def test_empty_environment_is_a_whole_system():
    settings = Settings.load({})
    assert settings.database_uri.startswith("sqlite:////")
    assert settings.database_uri.endswith("/var/broadcast.sqlite3")
    assert (settings.redis_url, settings.demo, settings.is_production) == (None, False, False)


def test_values_come_from_the_mapping_that_was_handed_in(monkeypatch):
    monkeypatch.setenv("PORT", "1")
    assert Settings.load({"PORT": "8123"}).port == 8123
    assert Settings.load({}).port == 8000


def test_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("PORT", "8124")
    assert Settings.load().port == 8124


def test_empty_value_counts_as_unset():
    assert Settings.load({"DATABASE_URL": "", "PORT": ""}).database_url is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"), ("PORT", "65536"), ("PORT", "http"), ("WEB_CONCURRENCY", "0"), ("WEB_CONCURRENCY", "1.5"),
        ("APP_ENV", "prod"), ("LOG_LEVEL", "loud"), ("DEMO", "perhaps"), ("RATELIMIT_ENABLED", "2"),
        ("DATABASE_URL", "mysql://x"), ("REDIS_URL", "http://x"), ("REDIS_URL", "redis+sentinel://host"),
        ("SECRET_KEY", "short"), ("TRUSTED_PROXY_HOPS", "-1"),
        ("LIMIT_PUBLISH_PER_USER", "many"), ("LIMIT_LOGIN_PER_ADDRESS", "10"), ("HEARTBEAT_SECONDS", "0"),
        ("EMBED_ORIGINS", "*"), ("EMBED_ORIGINS", "https://a.example/"), ("EMBED_ORIGINS", "a.example"),
        ("EMBED_ORIGINS", "https://A.example"), ("EMBED_ORIGINS", "https://a.example:443"), ("EMBED_ORIGINS", "null"),
        ("EMBED_ORIGINS", "https://*.a.example"), ("EMBED_ORIGINS", "https://u:p@a.example"), ("EMBED_ORIGINS", "http://a.example:70000"),
        ("MAX_REQUESTS", "lots"), ("MAX_REQUESTS", "-1"), ("SESSION_IDLE_HOURS", "inf"), ("SESSION_MAX_HOURS", "1e300"),
        ("UNDO_SECONDS", "nan"), ("STREAM_MAX_AGE_SECONDS", "inf"), ("STREAMS_PER_WORKER", "9" * 30), ("ACCESS_LOG", "loud"),
        ("DATABASE_URL", "sqlite://"), ("DATABASE_URL", "postgresql://h:x/d"), ("DATABASE_URL", "sqlite:///a?mode=ro"),
        ("DATABASE_LOCK_TIMEOUT_SECONDS", "0"), ("STREAM_BACKLOG_BYTES", "1"), ("SESSION_IDLE_HOURS", "-1"),
    ],
)  # fmt: skip
def test_wrong_value_stops_the_program_and_is_named(name, value):
    assert refused(**{name: value}).startswith(f"{name}: ")


def test_origins_are_written_as_browsers_write_them():
    settings = Settings.load({"EMBED_ORIGINS": "https://a.example, http://localhost:5000,http://[::1]:8080"})
    assert settings.embed_origins == ["https://a.example", "http://localhost:5000", "http://[::1]:8080"]
    assert refused(EMBED_ORIGINS="http://a.example", APP_ENV="production", SECRET_KEY=KEY).startswith("EMBED_ORIGINS: ")


def test_every_problem_is_told_not_only_the_first():
    told = refused(PORT="x", LOG_LEVEL="loud")
    assert {line.partition(":")[0] for line in told.splitlines()} == {"PORT", "LOG_LEVEL"}
    told = refused(DATABASE_URL="mysql://x", REDIS_URL="http://x", SECRET_KEY="short")
    assert {line.partition(":")[0] for line in told.splitlines()} == {"DATABASE_URL", "REDIS_URL", "SECRET_KEY"}


def test_weak_key_is_not_repeated_in_the_hint():
    assert "hunter2" not in refused(SECRET_KEY="hunter2")


def test_production_refuses_demo_people():
    assert refused(APP_ENV="production", DEMO="1").startswith("DEMO: ")
    assert Settings.load({"APP_ENV": "production", "SECRET_KEY": KEY}).is_production


def test_lists_are_separated_by_commas():
    settings = Settings.load({"TRUSTED_HOSTS": "a.example, b.example,,", "SECRET_KEY_FALLBACKS": KEY})
    assert settings.trusted_hosts == ["a.example", "b.example"]
    assert settings.secret_key_fallbacks == [KEY]


OIDC = {"OIDC_ISSUER": "https://id.example", "OIDC_CLIENT_ID": "broadcast"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"OIDC_ISSUER": "http://id.example"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "id.example"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "http://localhost:8080", "APP_ENV": "production", "SECRET_KEY": KEY}, "OIDC_ISSUER"),
        ({"OIDC_CLIENT_ID": ""}, "OIDC_CLIENT_ID"),
        ({"OIDC_SCOPES": "profile email"}, "OIDC_SCOPES"),
        ({"OIDC_ROLE_MAP": "admins"}, "OIDC_ROLE_MAP"),
        ({"OIDC_ISSUER": "", "PASSWORD_SIGN_IN": "administrators"}, "PASSWORD_SIGN_IN"),
    ],
)
def test_sign_in_by_an_organisation_that_could_not_work_is_refused(changes, named):
    given = OIDC | {"PASSWORD_SIGN_IN": "administrators", "OIDC_ROLE_MAP": "a=admin, b = ops"}
    assert Settings.load(given).oidc_role_map == {"a": "admin", "b": "ops"}
    assert {line.partition(":")[0] for line in refused(**OIDC | changes).splitlines()} == {named}


def test_package_that_is_missing_is_a_hint_with_the_command(monkeypatch):
    monkeypatch.setattr("broadcast.config.auth_settings.find_spec", lambda name: None)
    assert "pip install --require-hashes -r requirements-oidc.txt" in refused(**OIDC)
    assert Settings.load({}).oidc_issuer is None


@pytest.mark.parametrize("limit", ["10/minute", "10 per hour", "5/15 minutes", "1/second"])
def test_limits_are_spelled_as_the_limiter_reads_them(limit):
    assert Settings.load({"LIMIT_DEFAULT": limit}).limit_default == limit


def test_settings_cannot_be_changed_at_run_time():
    with pytest.raises(ValidationError):
        Settings.load({}).port = 9000


def test_every_setting_has_its_sentence():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_key_is_read_from_its_file(tmp_path):
    (tmp_path / "secret_key").write_text(KEY + "\n")
    assert Settings.load({"DATA_DIR": str(tmp_path)}).read_secret_key() == KEY
    assert Settings.load({"DATA_DIR": str(tmp_path), "SECRET_KEY": "x" * 32}).read_secret_key() == "x" * 32


@pytest.mark.parametrize("content", [None, "", "short"])
def test_missing_or_weak_key_file_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "secret_key").write_text(content)
    with pytest.raises(SettingsError, match="^SECRET_KEY: "):
        Settings.load({"DATA_DIR": str(tmp_path)}).read_secret_key()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("HEARTBEAT_SECOND", "HEARTBEAT_SECONDS"), ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("DATABSE_URL", "DATABASE_URL"), ("TRUSTED_HOST", "TRUSTED_HOSTS"), ("SECRETKEY", "SECRET_KEY"),
        ("LIMIT_LOGIN_PER_ADRESS", "LIMIT_LOGIN_PER_ADDRESS"), ("OIDC_ISSUER_URL", "OIDC_ISSUER"),
    ],
)  # fmt: skip
def test_name_that_is_nearly_a_setting_is_told_with_the_right_one(given, meant):
    [sentence] = Settings.load({given: "1"}).misspelling_warnings
    assert sentence.startswith(f"{given} ")
    assert meant in sentence


def test_names_of_others_are_not_told():
    others = ["HOSTNAME", "PATH", "HOME", "PYTHONPATH", "KAFKA_HEAP_OPTS", "POSTGRES_PASSWORD", "REDIS_PORT", "LOGNAME"]
    assert Settings.load(dict.fromkeys(others, "1")).misspelling_warnings == []


@pytest.mark.parametrize(
    "key",
    [
        "k" * 40, "0123456789abcdef" * 4, "changeme" * 5, "ab" * 20, "secret" * 6, "my-secret-key-for-the-production-system",
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf", "x" * 32, "correct" * 5, "9f2c61d0" * 4,
        "django-insecure-%w3n!j5l0q8&zb@7rk^t", "Password-Password-Password-Password", "9f2c61d07be84a35",
    ],
)  # fmt: skip
def test_production_refuses_a_key_that_can_be_guessed(key, tmp_path):
    told = refused(APP_ENV="production", SECRET_KEY=key)
    assert told.startswith("SECRET_KEY: ")
    assert key not in told
    told = refused(APP_ENV="production", SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=f"{KEY[::-1]},{key}")
    assert {line.partition(":")[0] for line in told.splitlines()} == {"SECRET_KEY_FALLBACKS"}
    assert key not in told
    (tmp_path / "secret_key").write_text(key)
    settings = Settings.load({"APP_ENV": "production", "DATA_DIR": str(tmp_path)})
    with pytest.raises(SettingsError) as caught:
        settings.read_secret_key()
    assert key not in str(caught.value)


def test_random_keys_are_taken():
    for _ in range(200):
        for key in (secrets.token_hex(16), secrets.token_hex(32), secrets.token_urlsafe(32), secrets.token_urlsafe(64)):
            assert Settings.load({"APP_ENV": "production", "SECRET_KEY": key, "SECRET_KEY_FALLBACKS": key})


def test_networks_are_networks():
    assert refused(METRICS_FROM="prometheus").startswith("METRICS_FROM: ")
    assert len(Settings.load({"METRICS_FROM": "127.0.0.1, 10.0.0.0/8,::1"}).metrics_networks) == 3


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_setting_of_an_earlier_version_is_refused_with_its_new_name(old, new):
    with pytest.raises(SettingsError, match=f"^{old} is now {new}\\.$"):
        Settings.load({old: "1"})
    assert new.lower() in Settings.model_fields


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example", ("mail.example", 587, "starttls", "", "")),
        ("smtps://me%40a:p%2Fw@mail.example", ("mail.example", 465, "implicit", "me@a", "p/w")),
        ("smtp://127.0.0.1:25?starttls=no", ("127.0.0.1", 25, "none", "", "")),
    ],
)
def test_mail_server_is_read_from_its_url(url, server):
    settings = Settings.load({"EMAIL_URL": url, "EMAIL_FROM": "Us <us@example.com>"})
    assert tuple(settings.smtp_server) == server
    assert settings.link_base == "http://127.0.0.1:8000"


_PRODUCTION = {"APP_ENV": "production", "SECRET_KEY": KEY, "EMAIL_FROM": "a@b.example"}


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"EMAIL_URL": "http://mail.example"}, "EMAIL_URL: must be smtp://"),
        ({"EMAIL_URL": "smtp://"}, "EMAIL_URL: must be smtp://"),
        ({"EMAIL_URL": "smtp://a:99999"}, "EMAIL_URL: its port"),
        ({"EMAIL_URL": "smtp://a?tls=off"}, "EMAIL_URL: its only option"),
        ({"EMAIL_URL": "smtps://a?starttls=no"}, "EMAIL_URL: its only option"),
        ({"EMAIL_URL": "smtp://a"}, "EMAIL_FROM: name"),
        ({"EMAIL_FROM": "us"}, "EMAIL_FROM: 'us' is not"),
        ({"EMAIL_FROM": "us@"}, "EMAIL_FROM: 'us@' is not"),
        ({"PUBLIC_URL": "https://a.example/path"}, "PUBLIC_URL"),
        (_PRODUCTION | {"EMAIL_URL": "smtp://a"}, "PUBLIC_URL: mails"),
        (_PRODUCTION | {"EMAIL_URL": "smtp://u:p@a?starttls=no"}, "EMAIL_URL: a password without TLS"),
    ],
)  # fmt: skip
def test_settings_of_email_that_cannot_work_are_refused(changes, hint):
    assert hint in refused(**changes)
