"""Deliveries as clients see them. Pure."""

from enum import StrEnum

import msgspec

from mockpay.types import rfc3339
from mockpay.webhooks.log import Delivery


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    attempt: int
    url: str
    started_at: str
    duration_milliseconds: int | None
    response_status: int | None
    response_body: str | None
    error: str | None


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    payment_id: str
    event_id: str
    event: str
    webhook_url: str
    status: DeliveryStatus
    attempts: int
    max_attempts: int
    next_attempt_at: str | None
    last_error: str | None
    created_at: str
    finished_at: str | None
    attempt_log: list[AttemptView]


def delivery_view(delivery: Delivery) -> DeliveryView:
    return DeliveryView(
        id=str(delivery.id),
        payment_id=str(delivery.payment_id),
        event_id=str(delivery.event_id),
        event=delivery.event,
        webhook_url=delivery.url,
        status=DeliveryStatus(delivery.status),
        attempts=delivery.attempts,
        max_attempts=delivery.max_attempts,
        next_attempt_at=rfc3339(delivery.next_attempt_at) if delivery.status == "pending" else None,
        last_error=delivery.last_error,
        created_at=rfc3339(delivery.created_at),
        finished_at=rfc3339(delivery.finished_at) if delivery.finished_at else None,
        attempt_log=[
            AttemptView(
                attempt=attempt.attempt,
                url=attempt.url,
                started_at=rfc3339(attempt.started_at),
                duration_milliseconds=attempt.duration_milliseconds,
                response_status=attempt.response_status,
                response_body=attempt.response_body,
                error=attempt.error,
            )
            for attempt in delivery.attempt_log
        ],
    )
