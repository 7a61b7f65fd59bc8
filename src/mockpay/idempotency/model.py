"""What makes two requests the same. Pure."""

import functools
import hashlib
from typing import Any, Final

import msgspec

from mockpay.errors import IdempotencyKeyReused
from mockpay.exact_json import encode_canonical

MAX_KEY_LENGTH = 255
FINGERPRINT_VERSION: Final = 2
"""Names the form in which fingerprints are made now. The first held every field, also those at their default."""


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer as it is stored and sent: a status, and the exact bytes."""

    status: int
    body: bytes
    replayed: bool = False


class KeyedRequest(msgspec.Struct, frozen=True):
    """A request under a client's key, with its fingerprint, which is made of `operation` and `request`."""

    key: str
    operation: str
    request: msgspec.Struct
    fingerprint: bytes

    def is_of(self, fingerprint: bytes, version: int) -> bool:
        """Tells whether a stored fingerprint, made in the form of that version, is of this request."""
        if version == FINGERPRINT_VERSION:
            return fingerprint == self.fingerprint
        return fingerprint == first_fingerprint(self.operation, self.request)


class Stored(msgspec.Struct, frozen=True):
    """What a key stands for already."""

    fingerprint: bytes
    version: int
    status: int
    body: bytes

    def answer_to(self, request: KeyedRequest) -> Answer | IdempotencyKeyReused:
        """Returns the same answer again, if this is the same request."""
        if not request.is_of(self.fingerprint, self.version):
            return IdempotencyKeyReused()
        return Answer(self.status, self.body, replayed=True)


def is_valid_key(key: str) -> bool:
    """1 to 255 printable ASCII characters, which is what a header can carry unharmed."""
    return 1 <= len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable()


def keyed_request(key: str, operation: str, request: msgspec.Struct) -> KeyedRequest:
    """`request` is the decoded one: spelling the same request differently (5000 and "5000.00") is a repeat.

    `operation` names what is asked of what, so that a key used to create can't answer a refund.
    """
    return KeyedRequest(key, operation, request, fingerprint_of(operation, request))


def fingerprint_of(operation: str, request: msgspec.Struct) -> bytes:
    """Fields at their default are left out: a field that is added later makes no old request another one."""
    return hashlib.sha256(encode_canonical([operation, _significant(request)])).digest()


def first_fingerprint(operation: str, request: msgspec.Struct) -> bytes:
    """Makes the fingerprint in its first form, which knows the fields that requests had then, and no others."""
    return hashlib.sha256(encode_canonical([operation, _first_form(request)])).digest()


def _significant(request: msgspec.Struct) -> dict[str, Any]:
    """Returns the fields that are not at their default, nested requests in the same way."""
    found = {}
    for name, default in _defaults_of(type(request)):
        given = getattr(request, name)
        if given is default or given == default:  # to ask whether it is the same is the faster of the two
            continue
        found[name] = _significant(given) if isinstance(given, msgspec.Struct) else given
    return found


@functools.cache
def _defaults_of(kind: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    """A field without a default has one that no value is equal to."""
    return [(info.name, info.default) for info in msgspec.structs.fields(kind)]


def _first_form(value: Any) -> Any:
    if not isinstance(value, msgspec.Struct):
        return value
    known: frozenset[str] = getattr(value, "FIRST_FIELDS", frozenset(value.__struct_fields__))
    given = {name: getattr(value, name) for name in value.__struct_fields__ if name in known}
    return {name: _first_form(each) for name, each in given.items() if each is not msgspec.UNSET}
