from decimal import Decimal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from mockpay.payments.fraud import Rule, RuleType, assess, velocity_rules
from mockpay.types import Money

VELOCITY = Rule(id=UUID(int=1), name="v", rule_type=RuleType.VELOCITY, threshold=Decimal(5), window_secs=60)
AMOUNT = Rule(id=UUID(int=2), name="a", rule_type=RuleType.AMOUNT_LIMIT, threshold=Decimal(100))
SMALL = Money(100, "USD")


@given(st.integers(0, 20))
def test_velocity_flags_from_the_threshold_on(count: int) -> None:
    verdict = assess([VELOCITY], SMALL, {VELOCITY.id: count})
    assert (verdict is not None) == (count >= 5)


@given(st.integers(1, 30_000))
def test_the_amount_limit_flags_above_the_threshold(minor_units: int) -> None:
    verdict = assess([AMOUNT], Money(minor_units, "USD"), {})
    assert (verdict is not None) == (minor_units > 10_000)


def test_the_first_broken_rule_is_named() -> None:
    large, counts = Money(99_999, "USD"), {VELOCITY.id: 5}
    assert [
        getattr(assess(rules, large, counts), "rule", None) for rules in ([VELOCITY, AMOUNT], [AMOUNT, VELOCITY])
    ] == ["v", "a"]
    verdict = assess([VELOCITY], SMALL, counts)
    assert verdict is not None
    assert verdict.reason == "5 or more payments in the last 60 seconds"


def test_no_rules_no_verdict() -> None:
    assert assess([], SMALL, {}) is None
    assert velocity_rules([AMOUNT, VELOCITY]) == [VELOCITY]
