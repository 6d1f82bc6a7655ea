"""Encryption of push messages, and the key that signs them."""

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broadcast.channels.push_encryption import MAX_CONTENT_BYTES, encrypt
from broadcast.channels.push_messages import build_content, build_headers
from broadcast.channels.vapid import VapidKey
from broadcast.config.settings import Settings, SettingsError
from broadcast.domain.message import MAX_TITLE_CHARACTERS
from tests.support.push_service import decode

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def import_key(text: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(decode(text), "big"), ec.SECP256R1())


def test_encryption_is_that_of_the_standard():
    """The example of RFC 8291, appendix A."""
    body = encrypt(
        b"When I grow up, I want to be a watermelon",
        decode("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"),
        decode("BTBZMqHH6r4Tts7J_aSIgg"),
        key=import_key("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"),
        salt=decode("DGv6ra1nlYgDCS1FRnbzlw"),
    )
    assert body == decode(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95"
        "bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


@pytest.mark.parametrize("size", [0, 1, 300, MAX_CONTENT_BYTES])
def test_browser_can_decrypt_and_the_body_is_what_services_take(size):
    key, auth = ec.generate_private_key(ec.SECP256R1()), b"0123456789abcdef"
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    content = b"x" * size
    body = encrypt(content, point, auth)
    assert len(body) <= 4096
    assert http_ece.decrypt(body, private_key=key, auth_secret=auth, version="aes128gcm") == content


def test_longest_title_fits():
    card = SimpleNamespace(id=2**63, revision=10**6, title="🔥" * MAX_TITLE_CHARACTERS, priority="URGENT")
    assert len(build_content(card)) < MAX_CONTENT_BYTES


@pytest.mark.parametrize(
    ("expires_at", "ttl"), [(None, 28 * 86400), (NOW + timedelta(days=90), 28 * 86400), (NOW - timedelta(days=1), 0)]
)
def test_push_service_keeps_a_message_for_at_most_four_weeks(expires_at, ttl):
    assert build_headers(1, "LOW", expires_at=expires_at, now=NOW)["TTL"] == str(ttl)


def test_topic_is_one_that_services_take():
    assert len(build_headers(2**63, "LOW", expires_at=None, now=NOW)["Topic"]) <= 32


def test_key_is_made_once_and_private(tmp_path: Path):
    settings = Settings(data_dir=tmp_path / "new")
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: VapidKey(settings).public_key, range(16)))
    [path] = settings.data_dir.iterdir()
    assert len(keys) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    copied = Settings(data_dir=tmp_path, vapid_private_key=path.read_text())
    assert {VapidKey(copied).public_key} == keys
    assert list(tmp_path.iterdir()) == [settings.data_dir]


@pytest.mark.parametrize("text", ["", "nonsense", "A" * 43, "ä" * 43])
def test_file_without_a_key_is_named(tmp_path: Path, text):
    (tmp_path / "vapid_key").write_text(text)
    with pytest.raises(ValueError, match="vapid_key does not hold a key"):
        VapidKey(Settings(data_dir=tmp_path)).public_key  # noqa: B018 - read for what it raises


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"VAPID_PRIVATE_KEY": "secret"}, "VAPID_PRIVATE_KEY: must be 32 bytes"),
        ({"PUSH_SERVICES": "https://push.example.com"}, "PUSH_SERVICES: 'https://push.example.com' is not a host"),
        ({"PUSH_SERVICES": "push.example.com:99999"}, "is not a host"),
    ],
)
def test_settings_that_cannot_work_are_refused(environ, problem):
    with pytest.raises(SettingsError, match=problem) as refusal:
        Settings.load(environ)
    assert "secret" not in str(refusal.value)


def test_signature_is_used_again_for_hours_and_is_of_one_service(tmp_path: Path):
    key = VapidKey(Settings(data_dir=tmp_path))
    first = key.authorize("https://a.example/1")
    assert key.authorize("https://a.example/2") == first
    assert key.authorize("https://b.example/1") != first
