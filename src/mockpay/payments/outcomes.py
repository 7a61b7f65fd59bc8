"""Outcomes that come by themselves: asked for in the request, or by a value that stands for one. Pure.

Every random choice is made from the seed and the payment's idempotency key alone. So the same seed and the same
requests have the same outcomes, on whatever process and in whatever order they arrive.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, ClassVar, Final, Protocol

import msgspec

from mockpay.chance import Probability, Seed, chance
from mockpay.errors import Fault, InvalidRequest
from mockpay.payments.declines import FailureCode
from mockpay.payments.magic_values import AMOUNTS, PAYMENT_METHODS
from mockpay.payments.model import Planned, SimulatedStatus, Status
from mockpay.types import exact_decimal

LONGEST_DELAY_SECONDS: Final = 30 * 86_400


class Failures(dict[FailureCode, Probability]):
    """How probable each failure is."""

    json_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "min_properties": 1,
        "property_names": {"enum": list(FailureCode)},
        "additional_properties": Probability.json_schema,
    }

    @classmethod
    def parse(cls, raw: object) -> "Failures":
        if not isinstance(raw, dict) or not raw:
            raise ValueError("must be an object of failure codes and their probabilities")
        unknown = [name for name in raw if name not in list(FailureCode)]
        if unknown:
            raise ValueError(f"knows the failure codes {', '.join(FailureCode)}")
        return cls({FailureCode(name): Probability.parse(value) for name, value in raw.items()})


_SECONDS: Final = {"type": "number", "minimum": 0, "maximum": LONGEST_DELAY_SECONDS}


class Delay(tuple[float, float]):
    """Seconds, or a range of them."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {
        "one_of": [_SECONDS, {"type": "array", "items": _SECONDS, "min_items": 2, "max_items": 2}]
    }

    @classmethod
    def parse(cls, raw: object) -> "Delay":
        match raw:
            case [least, most]:
                ends = (least, most)
            case int() | Decimal():
                ends = (raw, raw)
            case _:
                raise ValueError("must be a number of seconds, or a list of two: the least and the most")
        if any(isinstance(end, str) for end in ends):
            raise ValueError("must be of numbers, not of strings")
        low, high = (float(exact_decimal(end)) for end in ends)
        if not 0 <= low <= high <= LONGEST_DELAY_SECONDS:
            raise ValueError(f"must be from 0 to {LONGEST_DELAY_SECONDS}, and a range in ascending order")
        return cls((low, high))


AT_ONCE: Final = Delay((0.0, 0.0))


class Wish(Protocol):
    """What of a request decides its outcome."""

    @property
    def amount(self) -> Decimal: ...
    @property
    def payment_method(self) -> str | msgspec.UnsetType: ...
    @property
    def outcome(self) -> "Outcome | msgspec.UnsetType": ...


class Outcome(msgspec.Struct, frozen=True):
    """The field `outcome` of POST /api/payments: a status, or how probable each is. What is left of 1 stays pending."""

    status: SimulatedStatus | msgspec.UnsetType = msgspec.UNSET
    failure_code: FailureCode | msgspec.UnsetType = msgspec.UNSET
    success: Probability | msgspec.UnsetType = msgspec.UNSET
    failed: Failures | msgspec.UnsetType = msgspec.UNSET
    after_seconds: Delay = AT_ONCE
    seed: Seed | msgspec.UnsetType = msgspec.UNSET

    FIRST_FIELDS: ClassVar = frozenset({"status", "failure_code", "success", "failed", "after_seconds", "seed"})
    """These are what a fingerprint of the first version is made of."""

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise InvalidRequest(faults)

    def _faults(self) -> Iterator[Fault]:
        by_chance = self.success is not msgspec.UNSET or self.failed is not msgspec.UNSET
        if (self.status is msgspec.UNSET) is not by_chance:
            yield Fault("status", "or else success and failed as probabilities: give one of the two")
        if self.failure_code is not msgspec.UNSET and self.status is not SimulatedStatus.FAILED:
            yield Fault("failure_code", "is for status failed only")
        if sum(self._chances().values()) > 1:
            yield Fault("success", "and failed must not be more than 1 together")

    def _chances(self) -> dict[FailureCode | None, Decimal]:
        """By failure code; None is success."""
        chances: dict[FailureCode | None, Decimal] = {}
        if self.success is not msgspec.UNSET:
            chances[None] = self.success
        if self.failed is not msgspec.UNSET:
            chances |= {code: self.failed[code] for code in FailureCode if code in self.failed}
        return chances

    def decide(self, idempotency_key: str, fresh_seed: int) -> Planned:
        """What becomes of the payment with this key, and after how many seconds."""
        seed = fresh_seed if self.seed is msgspec.UNSET else self.seed
        draw = chance(seed, idempotency_key)
        status, code = self._drawn(Decimal(draw.random()))
        return Planned(status=status, failure_code=code, seed=seed, after_seconds=draw.uniform(*self.after_seconds))

    def _drawn(self, number: Decimal) -> tuple[Status, FailureCode | None]:
        if self.status is SimulatedStatus.SUCCESS:
            return Status.SUCCESS, None
        if self.status is SimulatedStatus.FAILED:
            return Status.FAILED, self.failure_code or FailureCode.CARD_DECLINED
        for code, probability in self._chances().items():
            if number < probability:
                return (Status.SUCCESS, None) if code is None else (Status.FAILED, code)
            number -= probability
        return Status.PENDING, None


def planned(request: Wish, idempotency_key: str, new_seed: Callable[[], int]) -> Planned | None:
    """By the first of these that the request has: an outcome, a payment method that stands for one, such an amount."""
    if request.outcome is not msgspec.UNSET:
        return request.outcome.decide(idempotency_key, new_seed())
    if request.payment_method is not msgspec.UNSET and request.payment_method in PAYMENT_METHODS:
        return certain(PAYMENT_METHODS[request.payment_method]).decide(idempotency_key, new_seed())
    if request.amount in AMOUNTS:
        return certain(AMOUNTS[request.amount]).decide(idempotency_key, new_seed())
    return None


def certain(code: FailureCode | None) -> Outcome:
    """A failure with this code, or success, at once."""
    if code is None:
        return Outcome(status=SimulatedStatus.SUCCESS)
    return Outcome(status=SimulatedStatus.FAILED, failure_code=code)
