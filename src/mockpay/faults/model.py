"""The faults that the header X-MockPay-Fault can ask for. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from mockpay.chance import SEED_MAX, chance
from mockpay.errors import ApiError, Fault, InvalidRequest
from mockpay.fault_text import (
    Between,
    Parameters,
    Wait,
    fixed,
    read,
    spell,
    spell_seconds,
    spelled,
    take_wait,
    wait_parameters,
    whole,
)

HEADER: Final = "X-MockPay-Fault"
LONGEST_SECONDS: Final = 300.0
LATENCY: Final = fixed(2.0)

_WITH_RETRY_AFTER: Final = (429, 503)


class Effect(StrEnum):
    LATENCY = "latency"
    """The answer comes later."""
    TIMEOUT = "timeout"
    """Nothing is done, and no answer comes."""
    RESET = "reset"
    """Nothing is done, and the connection is reset."""
    ERROR = "error"
    """Nothing is done, and the answer is an error."""
    IN_PROGRESS = "in_progress"
    """Nothing is done: as if the first request with this key were still running."""
    TRUNCATED = "truncated"
    """It is done, and the connection ends in the middle of the answer."""
    MALFORMED = "malformed"
    """It is done, and the answer is no JSON."""
    LOST_RESPONSE = "lost_response"
    """It is done, and the answer is lost."""


class LostAs(StrEnum):
    """What the client sees in place of the answer."""

    RESET = "reset"
    TIMEOUT = "timeout"
    ERROR = "error"


class InjectedError(ApiError):
    """Its status and code are the client's choice; these are where it makes none."""

    status = 500
    code = "injected_error"
    summary = "The header X-MockPay-Fault, or a rule of /api/faults, asked for this error."

    def __init__(self, status: int, code: str) -> None:
        super().__init__(headers={"Retry-After": "1"} if status in _WITH_RETRY_AFTER else None)
        self.status = status
        self.code = code


class RequestInProgress(ApiError):
    status = 409
    code = "request_in_progress"
    summary = "The first request with this Idempotency-Key is still running. Repeat this one later."


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    effect: Effect
    wait: Wait = LATENCY
    seed: int | None = None
    status: int = InjectedError.status
    code: str = InjectedError.code
    lost_as: LostAs = LostAs.RESET

    @property
    def seconds(self) -> float:
        """Of one that is `drawn`."""
        assert isinstance(self.wait, Between)
        return self.wait.least

    @property
    def holds(self) -> bool:
        """Whether the request waits: for a time, or for the end of its connection."""
        if self.effect is Effect.LOST_RESPONSE:
            return self.lost_as is not LostAs.ERROR
        return self.effect in (Effect.LATENCY, Effect.TIMEOUT, Effect.RESET, Effect.TRUNCATED)

    @property
    def is_done(self) -> bool:
        """Whether the request is done, with the body that it has."""
        return self.effect not in (Effect.TIMEOUT, Effect.RESET, Effect.ERROR, Effect.IN_PROGRESS)

    def __str__(self) -> str:
        """As it is spelled, once it is drawn: what the answer, the log and the timeline say of it."""
        said = {
            "seconds": spell_seconds(self.seconds) if self.effect is Effect.LATENCY else None,
            "seed": self.seed,
            "as": None if self.lost_as is LostAs.RESET else self.lost_as,
            "status": None if self.status == InjectedError.status else self.status,
            "code": None if self.code == InjectedError.code else self.code,
        }
        return spell(self.effect, said)

    def drawn(self, fresh_seed: int, of: str) -> "Injection":
        """With a time that is certain, and the seed that it was drawn from, where it was left to chance."""
        if self.wait.is_fixed:
            return msgspec.structs.replace(self, seed=None)
        seed = fresh_seed if self.seed is None else self.seed
        return msgspec.structs.replace(self, wait=fixed(round(self.wait.draw(chance(seed, of)), 3)), seed=seed)


def parse(header: str) -> Injection:
    """Of the header. Raises InvalidRequest."""
    try:
        return read_injection(header)
    except ValueError as error:
        raise InvalidRequest([Fault(HEADER, str(error))]) from error


def read_injection(text: str) -> Injection:
    """`lost_response`, `latency; seconds=0.5-4`, `error; status=503; code=busy`.

    Raises ValueError with a sentence for the client.
    """
    name, values = read(text, TAKES)
    wait = take_wait(values, LONGEST_SECONDS, otherwise=LATENCY)
    fields: dict[str, Any] = {_FIELDS.get(name, name): value for name, value in values.items()}
    return Injection(effect=Effect(name), wait=wait, **fields)


def _as(value: str) -> LostAs:
    if value not in list(LostAs):
        raise ValueError(f"one of {', '.join(LostAs)}")
    return LostAs(value)


_FIELDS: Final = {"as": "lost_as"}
_ERROR: Final[Parameters] = {
    "status": lambda value: int(spelled(r"[45][0-9]{2}", "from 400 to 599")(value)),
    "code": spelled(r"[a-z][a-z0-9_]{0,49}", "lower_snake_case, 50 characters at most"),
}
TAKES: Final[Mapping[str, Parameters]] = {effect.value: {} for effect in Effect} | {
    Effect.LATENCY: {**wait_parameters(LONGEST_SECONDS), "seed": whole(0, SEED_MAX)},
    Effect.ERROR: _ERROR,
    Effect.LOST_RESPONSE: {"as": _as, **_ERROR},
}
"""The parameters of each."""
