"""The webhook that tells of a payment's new status. Pure."""

from decimal import Decimal
from uuid import UUID

import msgspec

from mockpay.events import Event
from mockpay.payments.model import Payment, Status
from mockpay.types import rfc3339

NAMES: dict[Status, Event] = {
    Status.SUCCESS: Event.SUCCESS,
    Status.FAILED: Event.FAILED,
    Status.REFUNDED: Event.REFUNDED,
    Status.PARTIALLY_REFUNDED: Event.REFUNDED,
    Status.FLAGGED: Event.FRAUD,
}
"""The event of each status. A pending payment is no news: the answer to its creation said so."""


class EventBody(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that an event does not have are left out of its body; those that it has may be null."""

    event_id: str
    event: Event
    payment_id: str
    status: str
    amount: Decimal
    currency: str
    timestamp: str
    reason: str | msgspec.UnsetType | None = msgspec.UNSET
    rule: str | msgspec.UnsetType | None = msgspec.UNSET
    original_amount: Decimal | msgspec.UnsetType = msgspec.UNSET
    refund_amount: Decimal | msgspec.UnsetType = msgspec.UNSET
    refund_reason: str | msgspec.UnsetType | None = msgspec.UNSET
    failure_code: str | msgspec.UnsetType | None = msgspec.UNSET
    failure_message: str | msgspec.UnsetType | None = msgspec.UNSET


def event_body(payment: Payment, event_id: UUID) -> EventBody:
    """For a payment whose status has an event."""
    body = EventBody(
        event_id=str(event_id),
        event=NAMES[payment.status],
        payment_id=str(payment.id),
        status=payment.status.value,
        amount=payment.money.major_units(),
        currency=payment.money.currency,
        timestamp=rfc3339(payment.updated_at),
    )
    match payment.status:
        case Status.FLAGGED:
            return msgspec.structs.replace(body, reason=payment.flag_reason, rule=payment.flag_rule)
        case Status.FAILED:
            return msgspec.structs.replace(
                body, failure_code=payment.failure_code, failure_message=payment.failure_message
            )
        case Status.REFUNDED | Status.PARTIALLY_REFUNDED:
            assert payment.refund is not None
            return msgspec.structs.replace(
                body,
                original_amount=payment.money.major_units(),
                refund_amount=payment.refund.major_units(),
                refund_reason=payment.refund_reason,
            )
        case Status.SUCCESS | Status.PENDING:
            return body
