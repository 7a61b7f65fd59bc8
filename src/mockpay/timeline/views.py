"""The entries of the timeline as clients see them. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from mockpay.events import Event
from mockpay.exact_json import decode
from mockpay.faults.rules import Operation
from mockpay.journal.model import RequestEntry
from mockpay.payments.declines import FailureCode
from mockpay.payments.model import Status, TriggeredBy
from mockpay.types import rfc3339

Absent = msgspec.UnsetType


class EntryType(StrEnum):
    REQUEST = "request"
    STATUS_CHANGE = "status_change"
    WEBHOOK = "webhook"
    """An event was put into the queue."""
    WEBHOOK_ATTEMPT = "webhook_attempt"


class EntryView(msgspec.Struct, frozen=True, kw_only=True):
    """`type` says which fields there are. `fault` is what made it fail, `fault_rule` the rule that said so: null where
    the header of the request did. The `status` of a request is null where no answer was sent, or the client was gone.
    """

    at: str
    type: EntryType
    payment_id: str | None
    request_id: str | Absent = msgspec.UNSET
    method: str | Absent = msgspec.UNSET
    path: str | Absent = msgspec.UNSET
    operation: Operation | Absent | None = msgspec.UNSET
    idempotency_key: str | Absent | None = msgspec.UNSET
    status: int | Absent | None = msgspec.UNSET
    replayed: bool | Absent = msgspec.UNSET
    duration_milliseconds: int | Absent = msgspec.UNSET
    old_status: Status | Absent | None = msgspec.UNSET
    new_status: Status | Absent = msgspec.UNSET
    triggered_by: TriggeredBy | Absent = msgspec.UNSET
    failure_code: FailureCode | Absent = msgspec.UNSET
    delivery_id: str | Absent = msgspec.UNSET
    event: Event | Absent = msgspec.UNSET
    webhook_url: str | Absent = msgspec.UNSET
    attempt: int | Absent = msgspec.UNSET
    copy: int | Absent = msgspec.UNSET
    response_status: int | Absent | None = msgspec.UNSET
    error: str | Absent | None = msgspec.UNSET
    fault: str | Absent | None = msgspec.UNSET
    fault_rule: str | Absent | None = msgspec.UNSET


class Entry(msgspec.Struct, frozen=True):
    """One with its place in the order of time."""

    created_at: datetime
    id: UUID
    view: EntryView


def request_entry(asked: RequestEntry) -> Entry:
    view = EntryView(
        at=rfc3339(asked.started_at),
        type=EntryType.REQUEST,
        payment_id=_text(asked.payment_id),
        request_id=asked.request_id,
        method=asked.method,
        path=asked.path,
        operation=Operation(asked.operation) if asked.operation else None,
        idempotency_key=asked.idempotency_key,
        status=asked.status,
        replayed=asked.replayed,
        duration_milliseconds=asked.duration_milliseconds,
        fault=asked.fault,
        fault_rule=_text(asked.fault_rule),
    )
    return Entry(asked.started_at, asked.id, view)


def change_entry(row: dict[str, Any]) -> Entry:
    code = decode(row["metadata"].encode()).get("failure_code")
    view = EntryView(
        at=rfc3339(row["at"]),
        type=EntryType.STATUS_CHANGE,
        payment_id=str(row["payment_id"]),
        old_status=Status(row["old_status"]) if row["old_status"] else None,
        new_status=Status(row["new_status"]),
        triggered_by=TriggeredBy(row["triggered_by"]),
        failure_code=FailureCode(code) if code else msgspec.UNSET,
    )
    return Entry(row["at"], row["id"], view)


def webhook_entry(row: dict[str, Any]) -> Entry:
    view = EntryView(
        at=rfc3339(row["at"]),
        type=EntryType.WEBHOOK,
        payment_id=str(row["payment_id"]),
        delivery_id=str(row["id"]),
        event=Event(row["event"]),
        webhook_url=row["url"],
        fault=row["fault"],
        fault_rule=_text(row["fault_rule"]),
    )
    return Entry(row["at"], row["id"], view)


def attempt_entry(row: dict[str, Any]) -> Entry:
    view = EntryView(
        at=rfc3339(row["at"]),
        type=EntryType.WEBHOOK_ATTEMPT,
        payment_id=str(row["payment_id"]),
        delivery_id=str(row["id"]),
        event=Event(row["event"]),
        attempt=row["attempt"],
        copy=row["copy"],
        response_status=row["response_status"],
        error=row["error"],
        fault=row["fault"],
        fault_rule=_text(row["fault_rule"]),
    )
    return Entry(row["at"], row["id"], view)


def _text(id_: UUID | None) -> str | None:
    return None if id_ is None else str(id_)
