"""The faults that the header X-MockPay-Fault can ask for. Pure."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from mockpay.errors import ApiError, Fault, InvalidRequest

HEADER: Final = "X-MockPay-Fault"
LONGEST_SECONDS: Final = 300.0

_PARAMETER: Final = re.compile(r"\s*([a-z]+)\s*=\s*([A-Za-z0-9_.]+)\s*")
_SECONDS: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
_STATUS: Final = re.compile(r"[45][0-9]{2}")
_WITH_RETRY_AFTER: Final = (429, 503)
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,49}")


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
    seconds: float = 2.0
    status: int = InjectedError.status
    code: str = InjectedError.code
    lost_as: LostAs = LostAs.RESET


# Which parameters each effect takes.
_TAKES: Final[Mapping[Effect, frozenset[str]]] = {
    Effect.LATENCY: frozenset({"seconds"}),
    Effect.ERROR: frozenset({"status", "code"}),
    Effect.LOST_RESPONSE: frozenset({"as", "status", "code"}),
}


def parse(header: str) -> Injection:
    """`lost_response`, `latency; seconds=1.5`, `error; status=503; code=busy`. Raises InvalidRequest."""
    name, *parameters = header.split(";")
    if name.strip() not in list(Effect):
        raise _wrong(f"must begin with one of {', '.join(Effect)}")
    injection = Injection(effect=Effect(name.strip()))
    allowed = _TAKES.get(injection.effect, frozenset())
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter)
        if not match or match[1] not in allowed:
            takes = f"takes {', '.join(sorted(allowed))}" if allowed else "takes no parameters"
            raise _wrong(f"{injection.effect} {takes}, each as name=value")
        injection = msgspec.structs.replace(injection, **_field(match[1], match[2]))
    return injection


def _field(name: str, value: str) -> dict[str, object]:
    match name:
        case "seconds" if _SECONDS.fullmatch(value) and float(value) <= LONGEST_SECONDS:
            return {"seconds": float(value)}
        case "status" if _STATUS.fullmatch(value):
            return {"status": int(value)}
        case "code" if _CODE.fullmatch(value):
            return {"code": value}
        case "as" if value in list(LostAs):
            return {"lost_as": LostAs(value)}
        case _:
            raise _wrong(
                f"{name}={value} is none: seconds are 0 to {LONGEST_SECONDS:g}, status is 400 to 599, "
                f"code is lower_snake_case, as is one of {', '.join(LostAs)}"
            )


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest([Fault(HEADER, message)])
