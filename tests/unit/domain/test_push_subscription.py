"""Which subscriptions of browsers are accepted."""

import base64

import pytest

from broadcast.base.errors import Invalid
from broadcast.domain.push_subscription import MAX_ENDPOINT_CHARACTERS, is_endpoint_allowed, parse_subscription

# of RFC 8291, appendix A
P256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
ENDPOINT = "https://fcm.googleapis.com/fcm/send/c1:APA91b"


def build_subscription(**changes) -> dict:
    keys = {"p256dh": P256DH, "auth": AUTH}
    for name in keys.keys() & changes.keys():
        keys[name] = changes.pop(name)
    return {"endpoint": ENDPOINT, "expirationTime": None, "keys": keys} | changes


def test_subscription_of_a_browser_is_accepted():
    endpoint = parse_subscription(build_subscription(p256dh=P256DH + "=", auth=AUTH + "=="))
    assert (endpoint.url, endpoint.p256dh, endpoint.auth) == (ENDPOINT, P256DH, AUTH)


@pytest.mark.parametrize(
    "endpoint",
    [
        ENDPOINT,
        "https://updates.push.services.mozilla.com/wpush/v2/gAAAA",
        "https://web.push.apple.com/QGuQy",
        "https://wns2-par02p.notify.windows.com/w/?token=BQYAAAD%2b",
        "https://push.example.com/x",
        "https://other.example.com:8443/x",
    ],
)
def test_known_push_services_and_those_of_the_setting_are_allowed(endpoint):
    assert is_endpoint_allowed(endpoint, more_services=["push.example.com", "other.example.com:8443"])


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://fcm.googleapis.com/x",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "https://push.example.com/x",
        "https://fcm.googleapis.com:8443/x",
        "https://fcm.googleapis.com.evil.example/x",
        "https://evilfcm.googleapis.com/x",
        "https://evilpush.apple.com/x",
        "https://fcm.googleapis.com@127.0.0.1/x",
        "https://user:password@fcm.googleapis.com/x",
        "https://fcm.googleapis.com\\@127.0.0.1/x",
        "https://127.0.0.1\\.fcm.googleapis.com/x",
        "https://fcm.googleapis.com:x/",
        "https://fcm.googleapis.com:99999/",
        "https://[fcm.googleapis.com/",
        "https://fcm.googleapis.com/x#y",
        "https://fcm.googleapis.com/a b",
        "https://fcm.googleapis.com/\r\nX: y",
        "https://fcm.googleapis.com/\0",
        "https://fcm。googleapis.com/x",
        "https://fcm.googleapis.com/ä",
        "https://fcm.googleapis.com/" + "a" * MAX_ENDPOINT_CHARACTERS,
        "https://",
        "",
        None,
        1,
        ["https://fcm.googleapis.com/x"],
    ],
)
def test_other_addresses_are_refused(endpoint):
    assert not is_endpoint_allowed(endpoint)
    with pytest.raises(Invalid) as refusal:
        parse_subscription(build_subscription(endpoint=endpoint))
    assert set(refusal.value.fields) == {"endpoint"}


def encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode()


@pytest.mark.parametrize(
    "key",
    ["", "x", "====", "ä", None, 7, [], P256DH[:-4], P256DH + "AAAA", "A" * 87, encode(b"\4" + b"\1" * 64), "=" * 9],
)
def test_garbage_is_no_key_of_a_browser(key):
    with pytest.raises(Invalid) as refusal:
        parse_subscription(build_subscription(p256dh=key))
    assert set(refusal.value.fields) == {"p256dh"}


@pytest.mark.parametrize("auth", ["", "x", None, 7, {}, AUTH[:-4], AUTH + "AAAA"])
def test_garbage_is_no_secret_of_a_browser(auth):
    with pytest.raises(Invalid) as refusal:
        parse_subscription(build_subscription(auth=auth))
    assert set(refusal.value.fields) == {"auth"}


@pytest.mark.parametrize(
    "raw", [None, [], "x", {}, {"endpoint": ENDPOINT}, {"endpoint": ENDPOINT, "keys": [P256DH, AUTH]}]
)
def test_what_is_no_subscription_is_refused(raw):
    with pytest.raises(Invalid):
        parse_subscription(raw)
