"""The catalogue of declines, test values, and what is decided from a seed."""

from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockpay.errors import InvalidRequest
from mockpay.idempotency.model import keyed_request
from mockpay.payments.declines import DECLINES, FailureCode, Retry
from mockpay.payments.magic_values import AMOUNTS, PAYMENT_METHODS
from mockpay.payments.model import Status
from mockpay.payments.outcomes import Outcome, planned
from mockpay.payments.requests import CreatePayment, SimulatePayment
from mockpay.web.body import decode_body

seeds = st.integers(0, 2**53 - 1)


def create(**fields: Any) -> CreatePayment:
    body = msgspec.json.encode({"amount": 5, "currency": "USD", **fields})
    return decode_body(body, CreatePayment)


def outcome(**fields: Any) -> Outcome:
    read = create(outcome=fields).outcome
    assert isinstance(read, Outcome)
    return read


def test_every_failure_has_a_message_and_advice() -> None:
    assert set(DECLINES) == set(FailureCode)
    assert {decline.retry for decline in DECLINES.values()} == set(Retry)
    assert len({decline.message for decline in DECLINES.values()}) == len(FailureCode)


def test_every_failure_can_be_brought_about_by_a_method_and_by_an_amount() -> None:
    assert set(PAYMENT_METHODS.values()) == set(AMOUNTS.values()) == {None, *FailureCode}


@given(seeds, seeds)
def test_a_certain_outcome_needs_no_luck(seed: int, fresh: int) -> None:
    decided = outcome(status="failed", failure_code="lost_card", after_seconds=3).decide("k", fresh)
    assert (decided.status, decided.failure_code, decided.after_seconds) == (Status.FAILED, "lost_card", 3)
    assert decided.seed == fresh
    assert outcome(status="success", seed=seed).decide("k", fresh).seed == seed
    assert outcome(status="failed").decide("k", fresh).failure_code == "card_declined"


@given(seeds, st.text(min_size=1, max_size=20))
def test_the_same_seed_and_key_decide_the_same(seed: int, key: str) -> None:
    wish = outcome(success=0.4, failed={"expired_card": 0.2, "lost_card": 0.2}, after_seconds=[1, 5], seed=seed)
    first = wish.decide(key, 1)
    assert first == wish.decide(key, 2)
    assert 1 <= first.after_seconds <= 5


def test_a_distribution_is_kept_to() -> None:
    wish = outcome(success=0.5, failed={"expired_card": 0.2, "lost_card": 0.1}, seed=1)
    decided = [wish.decide(f"key-{number}", 0) for number in range(5000)]
    shares = {key: count / 5000 for key, count in Counter((each.status, each.failure_code) for each in decided).items()}
    assert set(shares) == {
        (Status.SUCCESS, None), (Status.FAILED, FailureCode.EXPIRED_CARD), (Status.FAILED, FailureCode.LOST_CARD),
        (Status.PENDING, None),
    }  # fmt: skip
    for code, share in ((None, 0.5), (FailureCode.EXPIRED_CARD, 0.2), (FailureCode.LOST_CARD, 0.1)):
        assert abs(shares[Status.FAILED if code else Status.SUCCESS, code] - share) < 0.03


def test_another_seed_or_key_decides_for_itself() -> None:
    wish = outcome(success=0.5, seed=1)
    by_key = {wish.decide(f"key-{number}", 0).status for number in range(50)}
    by_seed = {outcome(success=0.5, seed=number).decide("key", 0).status for number in range(50)}
    assert by_key == by_seed == {Status.SUCCESS, Status.PENDING}


@pytest.mark.parametrize(("fields", "faulty"), [
    ({}, {"outcome.status"}), ({"status": "success", "success": 1}, {"outcome.status"}),
    ({"status": "success", "failure_code": "lost_card"}, {"outcome.failure_code"}),
    ({"success": 1, "failure_code": "lost_card"}, {"outcome.failure_code"}),
    ({"success": 0.9, "failed": {"lost_card": 0.2}}, {"outcome.success"}), ({"success": 1.1}, {"outcome.success"}),
    ({"failed": {"rusty_card": 1}}, {"outcome.failed"}), ({"failed": {}}, {"outcome.failed"}),
    ({"failed": {"lost_card": "1"}}, {"outcome.failed"}), ({"status": "refunded"}, {"outcome.status"}),
    ({"status": "success", "after_seconds": -1}, {"outcome.after_seconds"}),
    ({"status": "success", "after_seconds": [2, 1]}, {"outcome.after_seconds"}),
    ({"status": "success", "after_seconds": [1]}, {"outcome.after_seconds"}),
    ({"status": "success", "after_seconds": "1"}, {"outcome.after_seconds"}),
    ({"status": "success", "after_seconds": 2_592_001}, {"outcome.after_seconds"}),
    ({"status": "success", "seed": -1}, {"outcome.seed"}), ({"status": "success", "seed": 2**53}, {"outcome.seed"}),
    ({"status": "success", "sead": 1, "seed": "x"}, {"outcome.sead", "outcome.seed"}),
])  # fmt: skip
def test_outcomes_that_are_none(fields: dict[str, Any], faulty: set[str]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        create(outcome=fields)
    assert {fault.field for fault in raised.value.details} == faulty


@pytest.mark.parametrize(("fields", "status", "code"), [
    ({"payment_method": "pm_success"}, "success", None), ({"payment_method": "pm_lost_card"}, "failed", "lost_card"),
    ({"payment_method": "4000000000009995"}, "failed", "insufficient_funds"), ({"amount": 66_600}, "success", None),
    ({"amount": "66601.00"}, "failed", "card_declined"), ({"amount": 66_601, "currency": "JPY"}, "failed", "card_declined"),
    ({"payment_method": "pm_success", "amount": 66_601}, "success", None),
    ({"payment_method": "pm_success", "outcome": {"status": "failed"}}, "failed", "card_declined"),
])  # fmt: skip
def test_values_that_decide_and_their_order(fields: dict[str, Any], status: str, code: str | None) -> None:
    decided = planned(create(**fields), "k", lambda: 0)
    assert decided is not None
    assert (decided.status, decided.failure_code, decided.after_seconds) == (status, code, 0)


@pytest.mark.parametrize("fields", [{}, {"amount": 66_600.01}, {"amount": 66_599}, {"payment_method": "pm_of_ada"}])
def test_values_that_decide_nothing(fields: dict[str, Any]) -> None:
    assert planned(create(**fields), "k", lambda: 0) is None


@pytest.mark.parametrize(
    "value", ["4111111111111111", "4242 4242 4242 4242", "42424242424242421", "", "pm a", 1, None, "ü"]
)
def test_nothing_that_could_be_a_card_is_taken(value: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        create(payment_method=value)
    assert [fault.field for fault in raised.value.details] == ["payment_method"]


def test_a_failure_code_is_for_failures() -> None:
    with pytest.raises(InvalidRequest):
        decode_body(b'{"status": "success", "failure_code": "lost_card"}', SimulatePayment)


def test_an_outcome_is_a_part_of_what_makes_two_requests_the_same() -> None:
    bodies: list[dict[str, Any]] = [
        {}, {"payment_method": "pm_success"}, {"outcome": {"status": "success"}},
        {"outcome": {"status": "success", "seed": 1}}, {"outcome": {"failed": {"lost_card": 0.5}}},
        {"outcome": {"status": "success", "after_seconds": 1}},
    ]  # fmt: skip
    assert len({keyed_request("k", "create", create(**body)).fingerprint for body in bodies}) == len(bodies)
    spelled = [{"outcome": {"status": "success", "after_seconds": after}} for after in (1, 1.0, [1, 1])]
    assert len({keyed_request("k", "create", create(**body)).fingerprint for body in spelled}) == 1


@given(st.decimals(0, 1, places=3), st.decimals(0, 1, places=3))
def test_probabilities_are_exact(success: Decimal, failed: Decimal) -> None:
    body = f'{{"amount": 5, "currency": "USD", "outcome": {{"success": {success:f}, "failed": {{"lost_card": {failed:f}}}}}}}'
    if success + failed > 1:
        with pytest.raises(InvalidRequest):
            decode_body(body.encode(), CreatePayment)
    else:
        assert decode_body(body.encode(), CreatePayment).outcome is not msgspec.UNSET
