"""Payments as clients see them. Pure."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from mockpay.audit.chain import Break, Entry
from mockpay.payments.declines import FailureCode
from mockpay.payments.model import Payment, Planned, Status, TriggeredBy
from mockpay.types import rfc3339
from mockpay.webhooks.log import Delivery
from mockpay.webhooks.views import DeliveryView, delivery_view

View = Callable[[Payment], msgspec.Struct]
"""How a payment is shown in answer to what was done to it."""


class OutcomeView(msgspec.Struct, frozen=True, kw_only=True):
    """What the payment becomes by itself. `pending` is to stay as it is; `seed` gives the same again."""

    status: Status
    failure_code: FailureCode | None
    due_at: str | None
    seed: int


class PaymentView(msgspec.Struct, frozen=True, kw_only=True):
    """`payment_id` is the same as `id`. `payment_method` and `outcome` are there if the payment has them."""

    id: str
    payment_id: str
    amount: Decimal
    currency: str
    status: Status
    webhook_url: str | None
    description: str | None
    metadata: dict[str, Any] | None
    idempotency_key: str
    failure_code: str | None
    failure_message: str | None
    refund_amount: Decimal | None
    refunded_at: str | None
    refund_reason: str | None
    flag_reason: str | None
    flag_rule: str | None
    created_at: str
    updated_at: str
    payment_method: str | msgspec.UnsetType = msgspec.UNSET
    outcome: OutcomeView | msgspec.UnsetType = msgspec.UNSET


class RefundView(msgspec.Struct, frozen=True, kw_only=True):
    payment_id: str
    status: Status
    original_amount: Decimal
    refund_amount: Decimal
    refunded_at: str
    refund_reason: str | None


class PageView(msgspec.Struct, frozen=True, kw_only=True):
    """`total` is the number of payments in this page."""

    data: list[PaymentView]
    total: int
    has_more: bool
    next_cursor: str | None


class AuditEntryView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    old_status: Status | None
    new_status: Status
    triggered_by: TriggeredBy
    metadata: dict[str, Any]
    created_at: str
    entry_hash: str
    prev_hash: str


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """`intact` is the outcome of recomputing the hash chain just now; `broken` says where it is not."""

    payment_id: str
    total_events: int
    history: list[AuditEntryView]
    intact: bool
    broken: str | msgspec.UnsetType | None = msgspec.UNSET


class DeliveriesView(msgspec.Struct, frozen=True, kw_only=True):
    payment_id: str
    total: int
    deliveries: list[DeliveryView]


def payment_view(payment: Payment) -> PaymentView:
    id_ = str(payment.id)
    created_at = rfc3339(payment.created_at)
    return PaymentView(
        id=id_,
        payment_id=id_,
        amount=payment.money.major_units(),
        currency=payment.money.currency,
        status=payment.status,
        webhook_url=payment.webhook_url,
        description=payment.description,
        metadata=payment.metadata,
        idempotency_key=payment.idempotency_key,
        failure_code=payment.failure_code,
        failure_message=payment.failure_message,
        refund_amount=payment.refund.major_units() if payment.refund else None,
        refunded_at=rfc3339(payment.refunded_at) if payment.refunded_at else None,
        refund_reason=payment.refund_reason,
        flag_reason=payment.flag_reason,
        flag_rule=payment.flag_rule,
        created_at=created_at,
        updated_at=created_at if payment.updated_at == payment.created_at else rfc3339(payment.updated_at),
        payment_method=msgspec.UNSET if payment.payment_method is None else payment.payment_method,
        outcome=msgspec.UNSET if payment.outcome is None else _outcome_view(payment.outcome),
    )


def _outcome_view(outcome: Planned) -> OutcomeView:
    return OutcomeView(
        status=outcome.status,
        failure_code=outcome.failure_code,
        due_at=rfc3339(outcome.due_at) if outcome.due_at else None,
        seed=outcome.seed,
    )


def refund_view(payment: Payment) -> RefundView:
    """Of a payment that has been refunded."""
    assert payment.refund is not None
    assert payment.refunded_at is not None
    return RefundView(
        payment_id=str(payment.id),
        status=payment.status,
        original_amount=payment.money.major_units(),
        refund_amount=payment.refund.major_units(),
        refunded_at=rfc3339(payment.refunded_at),
        refund_reason=payment.refund_reason,
    )


def audit_view(payment: Payment, entries: list[Entry], broken: Break | None) -> AuditView:
    return AuditView(
        payment_id=str(payment.id),
        total_events=len(entries),
        history=[_entry_view(entry) for entry in entries],
        intact=broken is None,
        broken=f"entry {broken.entry_id or broken.sequence}: {broken.problem}" if broken else msgspec.UNSET,
    )


def _entry_view(entry: Entry) -> AuditEntryView:
    content = entry.content
    return AuditEntryView(
        id=str(content.id),
        old_status=Status(content.old_status) if content.old_status else None,
        new_status=Status(content.new_status),
        triggered_by=TriggeredBy(content.triggered_by),
        metadata=content.metadata,
        created_at=rfc3339(content.created_at),
        entry_hash=entry.entry_hash,
        prev_hash=entry.prev_hash,
    )


def deliveries_view(payment: Payment, deliveries: list[Delivery]) -> DeliveriesView:
    return DeliveriesView(
        payment_id=str(payment.id),
        total=len(deliveries),
        deliveries=[delivery_view(delivery) for delivery in deliveries],
    )
