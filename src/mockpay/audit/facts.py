"""What an entry of the trail says of its payment. Pure."""

from mockpay.types import Money


def facts_of(
    *,
    money: Money,
    refund: Money | None,
    refund_reason: str | None,
    failure_code: str | None,
    flag_rule: str | None,
    flag_reason: str | None,
) -> dict[str, str]:
    """What made the payment what it is. Amounts are text: exact in every store, and so is their hash."""
    facts = {
        "amount": f"{money.major_units():f}",
        "currency": money.currency,
        "refund_amount": f"{refund.major_units():f}" if refund else None,
        "refund_reason": refund_reason,
        "failure_code": failure_code,
        "flag_rule": flag_rule,
        "flag_reason": flag_reason,
    }
    return {name: value for name, value in facts.items() if value is not None}
