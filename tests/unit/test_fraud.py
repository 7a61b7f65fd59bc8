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
    found = assess([VELOCITY], SMALL, {VELOCITY.id: count})
    assert (found.verdict is not None) == (count >= 5)
    assert found.room == (None if found.verdict else 4 - count)


@given(st.integers(1, 30_000))
def test_the_amount_limit_flags_above_the_threshold(minor_units: int) -> None:
    found = assess([AMOUNT], Money(minor_units, "USD"), {})
    assert (found.verdict is not None) == (minor_units > 10_000)
    assert found.room is None


def test_the_first_broken_rule_is_named() -> None:
    large, counts = Money(99_999, "USD"), {VELOCITY.id: 5}
    assert [
        getattr(assess(rules, large, counts).verdict, "rule", None)
        for rules in ([VELOCITY, AMOUNT], [AMOUNT, VELOCITY])
    ] == ["v", "a"]


def test_a_reason_says_which_rule_it_is_and_how_to_lift_it() -> None:
    verdict = assess([VELOCITY], SMALL, {VELOCITY.id: 5}).verdict
    assert verdict is not None
    assert verdict.reason == (
        "5 or more payments in the last 60 seconds; PATCH /api/admin/fraud-rules/00000000-0000-0000-0000-000000000001 "
        "changes the rule, and 'mockpay serve --unlimited' lifts such rules"
    )
    verdict = assess([AMOUNT], Money(10_001, "USD"), {}).verdict
    assert verdict is not None
    assert verdict.reason == (
        "amount 100.01 is above the limit of 100; PATCH /api/admin/fraud-rules/00000000-0000-0000-0000-000000000002 "
        "changes the rule"
    )


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 9), st.integers(0, 9))
def test_a_verdict_stays_the_same_while_there_is_room(thresholds: list[int], count: int, others: int) -> None:
    """Whatever others create meanwhile, as long as it is no more than the verdict has room for; and then it does not."""
    rules = [
        Rule(id=UUID(int=n), name=f"v{n}", rule_type=RuleType.VELOCITY, threshold=Decimal(each), window_secs=60)
        for n, each in enumerate(thresholds)
    ]
    found, later = (assess(rules, SMALL, {rule.id: of for rule in rules}) for of in (count, count + others))
    assert (later.verdict == found.verdict) == (found.room is None or others <= found.room)


def test_no_rules_no_verdict() -> None:
    assert assess([], SMALL, {}).verdict is None
    assert velocity_rules([AMOUNT, VELOCITY]) == [VELOCITY]
