"""Encrypts a push message for one browser (RFC 8291), as one record of aes128gcm (RFC 8188).

The package http-ece does the same; the tests check this against it. It exists as source only, so that installing it
would run a build with tools that no lock names.
"""

import os

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAX_CONTENT_BYTES = 3993  # a push service takes 4096 bytes: header 86, delimiter 1, tag 16
_RECORD_BYTES = 4096
_LAST_RECORD = b"\x02"


def encrypt(
    content: bytes,
    p256dh: bytes,
    auth: bytes,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    salt: bytes | None = None,
) -> bytes:
    """The body of a push message for the browser with this public key and secret. `key` and `salt` are made for each
    message, except in a test. Raises ValueError for a public key that is no point of the curve.
    """
    key, salt = key or ec.generate_private_key(ec.SECP256R1()), salt or os.urandom(16)
    browser_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), p256dh)
    sender_point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = key.exchange(ec.ECDH(), browser_key)
    secret = _derive(shared, salt=auth, info=b"WebPush: info\0" + p256dh + sender_point, length=32)
    content_key = _derive(secret, salt=salt, info=b"Content-Encoding: aes128gcm\0", length=16)
    nonce = _derive(secret, salt=salt, info=b"Content-Encoding: nonce\0", length=12)
    header = salt + _RECORD_BYTES.to_bytes(4, "big") + bytes([len(sender_point)]) + sender_point
    return header + AESGCM(content_key).encrypt(nonce, content + _LAST_RECORD, None)


def _derive(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)
