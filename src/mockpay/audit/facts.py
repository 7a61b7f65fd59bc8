"""What an entry of the trail says of its payment. Pure."""

from collections.abc import Mapping
from typing import Any

from mockpay.types import CURRENCY_EXPONENTS, Money


def facts_of(
    *,
    amount_minor_units: int,
    currency: str,
    refund_minor_units: int | None,
    refund_reason: str | None,
    failure_code: str | None,
    flag_rule: str | None,
    flag_reason: str | None,
) -> dict[str, str]:
    """What made the payment what it is. The parameters are named as its columns are."""
    facts = {
        "amount": _amount(amount_minor_units, currency),
        "currency": currency,
        "refund_amount": _amount(refund_minor_units, currency),
        "refund_reason": refund_reason,
        "failure_code": failure_code,
        "flag_rule": flag_rule,
        "flag_reason": flag_reason,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _amount(minor_units: int | None, currency: str) -> str | None:
    """As text: exact in every store, and so is its hash. Of a currency that was withdrawn since, or that somebody made
    up, nobody knows the minor units.
    """
    if minor_units is None or currency not in CURRENCY_EXPONENTS:
        return None
    return f"{Money(minor_units, currency).major_units():f}"


def changed_facts(told: Mapping[str, Any], facts: Mapping[str, str]) -> list[str]:
    """Names of what an entry says and is otherwise now. What an earlier version did not say can't be judged."""
    unknown = () if "amount" in facts else ("amount", "refund_amount")
    return [name for name, value in told.items() if facts.get(name) != value and name not in unknown]
