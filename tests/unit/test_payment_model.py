"""The state machine, read as its specification."""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockpay.errors import InvalidRequest, InvalidTransition
from mockpay.payments.events import NAMES, event_body
from mockpay.payments.model import TRANSITIONS, Change, Fail, Payment, Refund, Status, Succeed, apply
from mockpay.types import Amount, Money
from tests.support.fakes import START

LATER = START + timedelta(seconds=7)
TERMINAL = {Status.FAILED, Status.FLAGGED, Status.REFUNDED, Status.PARTIALLY_REFUNDED}


def payment(status: Status = Status.PENDING, minor_units: int = 5000, currency: str = "USD") -> Payment:
    return Payment(
        tenant_id=UUID(int=1), id=UUID(int=2), money=Money(minor_units, currency), status=status, webhook_url=None,
        description=None, metadata=None, idempotency_key="k", created_at=START, updated_at=START,
    )  # fmt: skip


@pytest.mark.parametrize(("before", "change", "after"), [
    (Status.PENDING, Succeed(), Status.SUCCESS),
    (Status.PENDING, Fail(), Status.FAILED),
    (Status.SUCCESS, Refund(Decimal(50), None), Status.REFUNDED),
    (Status.SUCCESS, Refund(Decimal("49.99"), "torn"), Status.PARTIALLY_REFUNDED),
    (Status.SUCCESS, Refund(Decimal("0.01"), None), Status.PARTIALLY_REFUNDED),
])  # fmt: skip
def test_what_is_allowed(before: Status, change: Change, after: Status) -> None:
    changed = apply(payment(before), change, LATER)
    assert changed.status is after
    assert changed.updated_at == LATER
    assert changed.created_at == START


@pytest.mark.parametrize("before", Status)
@pytest.mark.parametrize("change", [Succeed(), Fail(), Refund(Decimal(1), None)])
def test_everything_else_is_refused(before: Status, change: Change) -> None:
    allowed = before is (Status.SUCCESS if isinstance(change, Refund) else Status.PENDING)
    if not allowed:
        with pytest.raises(InvalidTransition, match=before.value):
            apply(payment(before), change, LATER)


def test_terminal_states_have_no_way_out() -> None:
    assert {status for status, ways in TRANSITIONS.items() if not ways} == TERMINAL
    assert set(TRANSITIONS) == set(Status)


def test_a_refund_keeps_what_it_was() -> None:
    refunded = apply(payment(Status.SUCCESS), Refund(Decimal("12.5"), "torn"), LATER)
    assert (refunded.refund, refunded.refunded_at, refunded.refund_reason) == (Money(1250, "USD"), LATER, "torn")


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_a_refund_is_at_most_the_amount(amount: int, refund: int) -> None:
    before = payment(Status.SUCCESS, amount)
    change = Refund(Money(refund, "USD").major_units(), None)
    if refund > amount:
        with pytest.raises(InvalidRequest, match="refund_amount"):
            apply(before, change, LATER)
    else:
        after = apply(before, change, LATER)
        assert after.status is (Status.REFUNDED if refund == amount else Status.PARTIALLY_REFUNDED)


@pytest.mark.parametrize(("amount", "currency"), [("0.5", "JPY"), ("0.001", "USD")])
def test_a_refund_has_no_more_decimals_than_the_currency(amount: str, currency: str) -> None:
    with pytest.raises(InvalidRequest, match="too many decimals"):
        apply(payment(Status.SUCCESS, currency=currency), Refund(Amount(amount), None), LATER)


@given(st.lists(st.sampled_from([Succeed(), Fail(), Refund(Decimal(50), None), Refund(Decimal(1), None)]), max_size=8))
def test_whatever_is_tried_a_payment_changes_at_most_twice(changes: list[Change]) -> None:
    current, moves = payment(), 0
    for change in changes:
        try:
            current, moves = apply(current, change, LATER), moves + 1
        except InvalidTransition:
            continue
    assert moves <= 2
    assert (current.refund is not None) == (current.status in {Status.REFUNDED, Status.PARTIALLY_REFUNDED})


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PENDING])
def test_every_status_but_pending_has_an_event(status: Status) -> None:
    refund = Money(10, "USD") if status in {Status.REFUNDED, Status.PARTIALLY_REFUNDED} else None
    body = event_body(msgspec.structs.replace(payment(status), refund=refund), UUID(int=3))
    assert body.event == NAMES[status]
    assert body.status == status
    assert Status.PENDING not in NAMES
