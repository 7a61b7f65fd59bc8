"""Fraud rules. Pure: what must be counted is asked for as facts."""

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


def velocity_rules(rules: Sequence[Rule]) -> list[Rule]:
    """The rules that need a count before `assess`."""
    return [rule for rule in rules if rule.rule_type is RuleType.VELOCITY]


def assess(rules: Sequence[Rule], money: Money, counts: Mapping[UUID, int]) -> Verdict | None:
    """The first rule that the payment breaks. `counts` holds, for each velocity rule, the tenant's recent payments."""
    verdicts = (_assess_one(rule, money, counts) for rule in rules)
    return next((verdict for verdict in verdicts if verdict), None)


def _assess_one(rule: Rule, money: Money, counts: Mapping[UUID, int]) -> Verdict | None:
    match rule.rule_type:
        case RuleType.VELOCITY:
            if counts[rule.id] < rule.threshold:
                return None
            return Verdict(rule.name, f"{rule.threshold:f} or more payments in the last {rule.window_secs} seconds")
        case RuleType.AMOUNT_LIMIT:
            amount = money.major_units()
            if amount <= rule.threshold:
                return None
            return Verdict(rule.name, f"amount {amount:f} is above the limit of {rule.threshold:f}")
        case _:
            assert_never(rule.rule_type)
