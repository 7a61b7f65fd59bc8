"""The payment and its state machine. Pure: time comes in as an argument, nothing is read or written.

pending ──▶ success ──▶ refunded
   │           └──────▶ partially_refunded
   └──────▶ failed                               flagged (set at creation, by the fraud rules)
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, assert_never
from uuid import UUID

import msgspec

from mockpay.errors import Fault, InvalidRequest, InvalidTransition
from mockpay.payments.declines import DECLINES, FailureCode
from mockpay.types import Currency, Money


class Status(StrEnum):
    PENDING = "pending"
    SUCCESS = "success"
    FAILED = "failed"
    FLAGGED = "flagged"
    REFUNDED = "refunded"
    PARTIALLY_REFUNDED = "partially_refunded"


TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = {
    Status.PENDING: frozenset({Status.SUCCESS, Status.FAILED}),
    Status.SUCCESS: frozenset({Status.REFUNDED, Status.PARTIALLY_REFUNDED}),
    Status.FAILED: frozenset(),
    Status.FLAGGED: frozenset(),
    Status.REFUNDED: frozenset(),
    Status.PARTIALLY_REFUNDED: frozenset(),
}


class TriggeredBy(StrEnum):
    """Who changed a payment, for the audit trail."""

    CREATE_API = "create_api"
    SIMULATE_API = "simulate_api"
    REFUND_API = "refund_api"
    FRAUD_ENGINE = "fraud_engine"
    SCENARIO = "scenario"
    ADMIN = "admin"


class SimulatedStatus(StrEnum):
    """What a client may let a pending payment become."""

    SUCCESS = "success"
    FAILED = "failed"


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What a payment becomes by itself: success, failed, or pending, which is to stay as it is.

    `seed` is what the choice was made from. `due_at` is set by the database, once the payment is written.
    """

    status: Status
    failure_code: FailureCode | None
    seed: int
    after_seconds: float = 0.0
    due_at: datetime | None = None


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: UUID
    id: UUID
    money: Money
    status: Status
    webhook_url: str | None
    description: str | None
    metadata: dict[str, Any] | None
    idempotency_key: str
    payment_method: str | None = None
    outcome: Planned | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    refund: Money | None = None
    refunded_at: datetime | None = None
    refund_reason: str | None = None
    flag_reason: str | None = None
    flag_rule: str | None = None
    created_at: datetime
    updated_at: datetime


class Succeed(msgspec.Struct, frozen=True):
    pass


class Fail(msgspec.Struct, frozen=True):
    code: FailureCode = FailureCode.CARD_DECLINED


class Refund(msgspec.Struct, frozen=True):
    """`amount` is in major units, and not yet known to fit the payment's currency."""

    amount: Decimal
    reason: str | None


class Settle(msgspec.Struct, frozen=True):
    """Becomes what was planned for it."""


Change = Succeed | Fail | Refund | Settle


def apply(payment: Payment, change: Change, now: datetime) -> Payment:
    """The payment after the change. The old one is untouched.

    Raises InvalidTransition if the state forbids it, InvalidRequest if a refund's amount does not fit.
    """
    match change:
        case Succeed():
            return _move(payment, Status.SUCCESS, now)
        case Fail(code):
            return _move(payment, Status.FAILED, now, failure_code=code.value, failure_message=DECLINES[code].message)
        case Refund(amount, reason):
            return _refund(payment, amount, reason, now)
        case Settle():
            return apply(payment, _planned_change(payment), now)
        case _:
            assert_never(change)


def _planned_change(payment: Payment) -> Change:
    assert payment.outcome is not None, "only a payment with an outcome is due"
    code = payment.outcome.failure_code
    return Succeed() if code is None else Fail(code)


def _refund(payment: Payment, amount: Decimal, reason: str | None, now: datetime) -> Payment:
    if payment.status is not Status.SUCCESS:
        raise InvalidTransition(f"Only a payment in status success can be refunded; this one is {payment.status}.")
    refund = _refund_money(payment, amount)
    status = Status.REFUNDED if refund == payment.money else Status.PARTIALLY_REFUNDED
    return _move(payment, status, now, refund=refund, refunded_at=now, refund_reason=reason)


def _refund_money(payment: Payment, amount: Decimal) -> Money:
    try:
        refund = Money.of(amount, Currency(payment.money.currency))
    except ValueError as error:
        raise InvalidRequest([Fault("refund_amount", str(error))]) from error
    if refund.minor_units > payment.money.minor_units:
        limit = f"{payment.money.major_units()} {payment.money.currency}"
        raise InvalidRequest([Fault("refund_amount", f"must be at most the payment's amount, {limit}")])
    return refund


def _move(payment: Payment, status: Status, now: datetime, **fields: Any) -> Payment:
    allowed = TRANSITIONS[payment.status]
    if status not in allowed:
        ways = f"only become {' or '.join(sorted(allowed))}" if allowed else "not change any more"
        raise InvalidTransition(f"A payment in status {payment.status} can't become {status}; it can {ways}.")
    return msgspec.structs.replace(payment, status=status, updated_at=now, **fields)
