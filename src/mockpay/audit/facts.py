"""What an entry of the trail says of its payment. Pure."""

from collections.abc import Mapping
from typing import Any

from mockpay.types import Money


def facts_of(
    *,
    currency: str,
    money: Money | None,
    refund: Money | None,
    refund_reason: str | None,
    failure_code: str | None,
    flag_rule: str | None,
    flag_reason: str | None,
) -> dict[str, str]:
    """What made the payment what it is. Amounts are text: exact in every store, and so is their hash.

    `money` is None where its currency is none that is known, and nothing can be said of amounts.
    """
    facts = {
        "amount": f"{money.major_units():f}" if money else None,
        "currency": currency,
        "refund_amount": f"{refund.major_units():f}" if refund else None,
        "refund_reason": refund_reason,
        "failure_code": failure_code,
        "flag_rule": flag_rule,
        "flag_reason": flag_reason,
    }
    return {name: value for name, value in facts.items() if value is not None}


def changed_facts(told: Mapping[str, Any], facts: Mapping[str, str]) -> list[str]:
    """Names of what an entry says and is otherwise now. What an earlier version did not say can't be judged."""
    unknown = () if "amount" in facts else ("amount", "refund_amount")
    return [name for name, value in told.items() if facts.get(name) != value and name not in unknown]
