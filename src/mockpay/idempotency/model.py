"""What makes two requests the same. Pure."""

import hashlib

import msgspec

from mockpay.errors import IdempotencyKeyReused
from mockpay.exact_json import encode_canonical

MAX_KEY_LENGTH = 255


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer as it is stored and sent: a status, and the exact bytes."""

    status: int
    body: bytes
    replayed: bool = False


class KeyedRequest(msgspec.Struct, frozen=True):
    """A request under a client's key."""

    key: str
    fingerprint: bytes


class Stored(msgspec.Struct, frozen=True):
    """What a key stands for already."""

    fingerprint: bytes
    status: int
    body: bytes

    def answer_to(self, request: KeyedRequest) -> Answer | IdempotencyKeyReused:
        """The same again, if this is the same request."""
        if request.fingerprint != self.fingerprint:
            return IdempotencyKeyReused()
        return Answer(self.status, self.body, replayed=True)


def is_valid_key(key: str) -> bool:
    """1 to 255 printable ASCII characters, which is what a header can carry unharmed."""
    return 1 <= len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable()


def keyed_request(key: str, operation: str, request: msgspec.Struct) -> KeyedRequest:
    """`request` is the decoded one: spelling the same request differently (5000 and "5000.00") is a repeat.

    `operation` names what is asked of what, so that a key used to create can't answer a refund.
    """
    return KeyedRequest(key, hashlib.sha256(encode_canonical([operation, request])).digest())
