"""Deliveries as clients see them. Pure."""

from enum import StrEnum

import msgspec

from mockpay.types import rfc3339
from mockpay.webhooks.log import Attempt, Delivery


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class SentView(msgspec.Struct, frozen=True, kw_only=True):
    headers: dict[str, str]
    body: str


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """`fault` is what spoilt it, and `sent` what was sent therefore: null where it was what it should be.

    `copy` is 0 for the attempt itself; a duplicate has the same `attempt`, and counts from 1.
    """

    attempt: int
    copy: int
    url: str
    started_at: str
    duration_milliseconds: int | None
    response_status: int | None
    response_body: str | None
    error: str | None
    fault: str | None
    sent: SentView | None


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """`fault` was chosen for it by the rule `fault_rule` when the event happened."""

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
    fault: str | None
    fault_rule: str | None
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
        fault=delivery.fault,
        fault_rule=str(delivery.fault_rule) if delivery.fault_rule else None,
        attempt_log=[_attempt_view(attempt) for attempt in delivery.attempt_log],
    )


def _attempt_view(attempt: Attempt) -> AttemptView:
    sent = None
    if attempt.sent_headers is not None and attempt.sent_body is not None:
        sent = SentView(headers=msgspec.json.decode(attempt.sent_headers), body=attempt.sent_body)
    return AttemptView(
        attempt=attempt.attempt,
        copy=attempt.copy,
        url=attempt.url,
        started_at=rfc3339(attempt.started_at),
        duration_milliseconds=attempt.duration_milliseconds,
        response_status=attempt.response_status,
        response_body=attempt.response_body,
        error=attempt.error,
        fault=attempt.fault,
        sent=sent,
    )
