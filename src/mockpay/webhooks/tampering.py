"""What a fault does to a webhook: to when it is sent, how often, and what arrives. Pure.

What happened to the payment stays as it was recorded; only the message about it is another.
"""

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, assert_never

import msgspec

from mockpay.chance import chance
from mockpay.fault_text import (
    Between,
    Parameters,
    Wait,
    fixed,
    read,
    spell,
    spell_seconds,
    take_wait,
    wait_parameters,
    whole,
)

LONGEST_SECONDS: Final = 3600.0
_FIRST_NUMBER: Final = re.compile(rb'(?<=":)[0-9]')


class Tampering(StrEnum):
    DUPLICATE = "duplicate"
    """It comes several times at once."""
    DELAY = "delay"
    REORDER = "reorder"
    """It comes after the next event of its payment, if there is one within the time."""
    DROP = "drop"
    """It is lost on its way, and tried again as if the receiver had not been reached."""
    BAD_SIGNATURE = "bad_signature"
    OLD_SECRET = "old_secret"
    """Signed with the secret before the last rotation alone."""
    STALE_TIMESTAMP = "stale_timestamp"
    """Signed in earnest, long ago: as a message is that somebody recorded, and sends again."""
    TRUNCATED_BODY = "truncated_body"
    MUTATED_BODY = "mutated_body"
    """Valid JSON, of which a number was changed on the way."""
    WRONG_CONTENT_TYPE = "wrong_content_type"
    SLOW_BODY = "slow_body"


class WebhookFault(msgspec.Struct, frozen=True, kw_only=True):
    """`attempts` are those that it spoils, from the first; later ones, and replays, are sent as they should be."""

    kind: Tampering
    attempts: int = 1
    copies: int = 1
    wait: Wait = fixed(0.0)

    @property
    def seconds(self) -> float:
        """Of one that is `drawn`."""
        assert isinstance(self.wait, Between)
        return self.wait.least

    @property
    def messages(self) -> int:
        """How many an attempt sends."""
        match self.kind:
            case Tampering.DROP:
                return 0
            case Tampering.DUPLICATE:
                return 1 + self.copies
            case _:
                return 1

    @property
    def held_seconds(self) -> float:
        """How long after the event it is sent at the earliest, if nothing sets it free before."""
        return self.seconds if self.kind in (Tampering.DELAY, Tampering.REORDER) else 0.0

    def drawn(self, seed: int, of: str) -> "WebhookFault":
        """With a time that is certain, where it was left to chance."""
        return msgspec.structs.replace(self, wait=fixed(round(self.wait.draw(chance(seed, of)), 3)))

    def __str__(self) -> str:
        """As it is spelled."""
        said = {
            "seconds": spell_seconds(self.seconds) if self.kind in _WAITS else None,
            "copies": self.copies if self.kind is Tampering.DUPLICATE else None,
            "attempts": self.attempts if self.attempts > 1 else None,
        }
        return spell(self.kind, said)


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """What is about to be sent. The signature is made of the true body, whatever `body` has become."""

    body: bytes
    secrets: list[str]
    timestamp_seconds: int
    content_type: str = "application/json"
    body_seconds: float = 0.0


_ATTEMPTS: Final[Parameters] = {"attempts": whole(1, 100)}
_WAITS: Final[Mapping[Tampering, Wait]] = {
    Tampering.DELAY: fixed(5.0),
    Tampering.REORDER: fixed(5.0),
    Tampering.STALE_TIMESTAMP: fixed(600.0),
    Tampering.SLOW_BODY: fixed(3.0),
}
"""Where none is given."""
TAKES: Final[Mapping[str, Parameters]] = {kind.value: _ATTEMPTS for kind in Tampering} | {
    Tampering.DUPLICATE: {"copies": whole(1, 20)},
    Tampering.DELAY: wait_parameters(LONGEST_SECONDS),
    Tampering.REORDER: {"seconds": wait_parameters(LONGEST_SECONDS)["seconds"]},
    Tampering.STALE_TIMESTAMP: {"seconds": wait_parameters(LONGEST_SECONDS * 24)["seconds"], **_ATTEMPTS},
    Tampering.SLOW_BODY: {"seconds": wait_parameters(60.0)["seconds"], **_ATTEMPTS},
}
"""The parameters of each."""


def parse(text: str) -> WebhookFault:
    """`duplicate; copies=4`, `delay; seconds=1-5`. Raises ValueError with a sentence for the client."""
    name, values = read(text, TAKES)
    kind = Tampering(name)
    wait = take_wait(values, LONGEST_SECONDS, otherwise=_WAITS.get(kind, fixed(0.0)))
    fields: dict[str, Any] = values
    return WebhookFault(kind=kind, wait=wait, **fields)


def tampered(sending: Sending, fault: WebhookFault, old_secret: str | None) -> Sending:
    replace = msgspec.structs.replace
    match fault.kind:
        case Tampering.BAD_SIGNATURE:
            return replace(sending, secrets=[_nobodys(sending.secrets[0])])
        case Tampering.OLD_SECRET:
            return replace(sending, secrets=[old_secret or _nobodys(sending.secrets[0])])
        case Tampering.STALE_TIMESTAMP:
            return replace(sending, timestamp_seconds=sending.timestamp_seconds - int(fault.seconds))
        case Tampering.TRUNCATED_BODY:
            return replace(sending, body=_first_half(sending.body))
        case Tampering.MUTATED_BODY:
            return replace(sending, body=_mutated(sending.body))
        case Tampering.WRONG_CONTENT_TYPE:
            return replace(sending, content_type="text/plain")
        case Tampering.SLOW_BODY:
            return replace(sending, body_seconds=fault.seconds)
        case Tampering.DUPLICATE | Tampering.DELAY | Tampering.REORDER | Tampering.DROP:
            return sending
        case _:
            assert_never(fault.kind)


def _nobodys(secret: str) -> str:
    """A secret that nobody has, the same every time."""
    return hashlib.sha256(f"not {secret}".encode()).hexdigest()


def _first_half(body: bytes) -> bytes:
    """Between two characters, so that the log can show what was sent."""
    return body[: len(body) // 2].decode(errors="ignore").encode()


def _mutated(body: bytes) -> bytes:
    """With a 9 before its first number, which of a payment is the amount; a body without one gets a space."""
    changed, count = _FIRST_NUMBER.subn(lambda digit: b"9" + digit[0], body, count=1)
    return changed if count else body + b" "
