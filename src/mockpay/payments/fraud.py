"""Fraud rules. Pure: what must be counted is asked for as facts."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, assert_never
from uuid import UUID

import msgspec

from mockpay.errors import Fault
from mockpay.types import MAX_MAJOR_UNITS, Money, exact_decimal

THRESHOLD_DECIMALS_MAX = 4


class RuleType(StrEnum):
    VELOCITY = "velocity"
    AMOUNT_LIMIT = "amount_limit"


class Threshold(Decimal):
    """Of a rule: a number of payments (velocity) or of major units (amount_limit)."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {"type": "number", "minimum": 0, "maximum": MAX_MAJOR_UNITS}

    @classmethod
    def parse(cls, raw: object) -> "Threshold":
        if isinstance(raw, str):
            raise ValueError("must be a number")
        value = exact_decimal(raw)
        if not 0 <= value <= MAX_MAJOR_UNITS:
            raise ValueError(f"must be from 0 to {MAX_MAJOR_UNITS}")
        if value != round(value, THRESHOLD_DECIMALS_MAX):
            raise ValueError(f"must have at most {THRESHOLD_DECIMALS_MAX} decimals")
        return cls(f"{value:f}")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """`threshold` is a number of payments (velocity) or of major units (amount_limit)."""

    id: UUID
    name: str
    rule_type: RuleType
    threshold: Decimal
    window_secs: int | None = None
    currency: str | None = None


class StoredRule(Rule, frozen=True, kw_only=True):
    """`tenant_id` is None where the rule holds for every tenant."""

    tenant_id: UUID | None
    action: str
    is_active: bool
    created_at: datetime


def faults_of(rule_type: RuleType, threshold: Decimal, window_secs: int | None) -> list[Fault]:
    """What is wrong with a rule as a whole, each of its fields being right by itself."""
    match rule_type:
        case RuleType.VELOCITY:
            faults = [] if window_secs else [Fault("window_secs", "is required for a velocity rule")]
            if threshold != int(threshold):
                faults.append(Fault("threshold", "must be a whole number of payments for a velocity rule"))
            return faults
        case RuleType.AMOUNT_LIMIT:
            return [Fault("window_secs", "is for velocity rules only")] if window_secs else []
        case _:
            assert_never(rule_type)


class Verdict(msgspec.Struct, frozen=True):
    """Why a payment is flagged. `rule` is the rule's name."""

    rule: str
    reason: str


class Assessment(msgspec.Struct, frozen=True):
    """Says what the rules make of one payment.

    `room` is how many payments of the tenant may be created by others, between the count and the moment when this is
    written, without changing it. It is None where no number of them would.
    """

    verdict: Verdict | None
    room: int | None


def velocity_rules(rules: Sequence[Rule]) -> list[Rule]:
    """Returns the rules that need a count before `assess`."""
    return [rule for rule in rules if rule.rule_type is RuleType.VELOCITY]


def assess(rules: Sequence[Rule], money: Money, counts: Mapping[UUID, int]) -> Assessment:
    """Finds the first rule that the payment breaks. `counts` holds, by velocity rule, the tenant's recent payments."""
    room: int | None = None
    for rule in rules:
        match rule.rule_type:
            case RuleType.VELOCITY:
                left = math.ceil(rule.threshold) - 1 - counts[rule.id]
                if left < 0:
                    return Assessment(_too_many(rule), room)
                room = left if room is None else min(room, left)
            case RuleType.AMOUNT_LIMIT:
                if money.major_units() > rule.threshold:
                    return Assessment(_too_large(rule, money.major_units()), room)
            case _:
                assert_never(rule.rule_type)
    return Assessment(None, room)


def _too_many(rule: Rule) -> Verdict:
    reason = (
        f"{rule.threshold:f} or more payments in the last {rule.window_secs} seconds; {_how_to_change(rule)}, and "
        "'mockpay serve --unlimited' lifts such rules"
    )
    return Verdict(rule.name, reason)


def _too_large(rule: Rule, amount: Decimal) -> Verdict:
    return Verdict(rule.name, f"amount {amount:f} is above the limit of {rule.threshold:f}; {_how_to_change(rule)}")


def _how_to_change(rule: Rule) -> str:
    return f"PATCH /api/admin/fraud-rules/{rule.id} changes the rule"
