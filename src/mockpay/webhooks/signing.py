"""Sign webhooks, and verify them. Pure.

Two schemes over the same secret, 64 hex characters, so that a receiver can use either: MockPay's own, which hashes the
body with the secret's text, and the Standard Webhooks specification (standardwebhooks.com), which hashes id, timestamp
and body with the secret's 32 bytes.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

SIGNATURE_HEADER: Final = "X-MockPay-Signature"
_SCHEME: Final = "sha256="


def sign(body: bytes, secret: str) -> str:
    """The value of X-MockPay-Signature."""
    return _SCHEME + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def sign_with_all(body: bytes, secrets: Sequence[str]) -> str:
    """While a secret is rotated two are live: the value then holds one signature each, divided by a comma."""
    return ",".join(sign(body, secret) for secret in secrets)


def verify(body: bytes, signature: str, secret: str) -> bool:
    """Whether `signature`, an X-MockPay-Signature, was made of exactly these bytes with this secret."""
    expected = sign(body, secret).encode()
    # Each candidate is compared in constant time, so that a forger can't learn a signature byte by byte.
    return any(hmac.compare_digest(expected, candidate.strip().encode()) for candidate in signature.split(","))


def standard_webhooks_secret(secret: str) -> str:
    """The form of the secret that Standard Webhooks libraries take."""
    return "whsec_" + base64.b64encode(bytes.fromhex(secret)).decode()


def sign_standard(body: bytes, message_id: str, timestamp_seconds: int, secrets: Sequence[str]) -> str:
    """The value of webhook-signature: one signature for each live secret, divided by spaces."""
    return " ".join(_sign_standard_once(body, message_id, timestamp_seconds, secret) for secret in secrets)


def verify_standard(body: bytes, message_id: str, timestamp_seconds: int, signature: str, secret: str) -> bool:
    """Whether `signature`, a webhook-signature, fits. How old a timestamp may be is the receiver's to decide."""
    expected = _sign_standard_once(body, message_id, timestamp_seconds, secret).encode()
    return any(hmac.compare_digest(expected, candidate.encode()) for candidate in signature.split(" "))


def _sign_standard_once(body: bytes, message_id: str, timestamp_seconds: int, secret: str) -> str:
    signed = b".".join([message_id.encode(), str(timestamp_seconds).encode(), body])
    digest = hmac.new(bytes.fromhex(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
