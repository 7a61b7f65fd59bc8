"""The tables of payments and fraud rules."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from mockpay import exact_json
from mockpay.cursor import LAST_ID, Cursor
from mockpay.payments.declines import FailureCode
from mockpay.payments.model import Payment, Planned, Status
from mockpay.payments.requests import ListPayments, Metadata
from mockpay.postgres.parameters import jsonb
from mockpay.postgres.pool import Connection
from mockpay.types import Money

_UPDATE_DETAILS_SQL: Final = """
UPDATE payments SET webhook_url = $3, description = $4, metadata = $5, updated_at = $6
WHERE tenant_id = $1 AND id = $2
"""
_BY_ID_SQL: Final = "SELECT * FROM payments WHERE tenant_id = $1 AND id = $2"
_BY_ID_LOCKED_SQL: Final = "SELECT * FROM payments WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE"

# The row comparison is what the index is ordered by, so the cost of a page does not depend on its depth. It is no
# part of an OR, which a prepared statement's plan could only use as a filter: the first page has a cursor too, and
# both ends of a range of time are bounds of the index.
_BEFORE_ALL: Final = Cursor(datetime.max.replace(tzinfo=UTC), LAST_ID)
_LIST_SQL: Final = """
SELECT * FROM payments
WHERE tenant_id = $1
  AND (created_at, id) < ($2, $3::uuid)
  AND created_at >= coalesce($4::timestamptz, '-infinity')
ORDER BY created_at DESC, id DESC
LIMIT $5
"""
# Nor does the cost of a page depend on how few match. Each pair of a status and a currency is a stretch of its index,
# in order. The currencies that a tenant has are found by going from each to the next. A page is the newest of all.
_FILTERED_LIST_SQL: Final = """
WITH RECURSIVE pair (status, currency) AS (
    SELECT status, coalesce($7::text, (
        SELECT currency FROM payments
        WHERE tenant_id = $1 AND payments.status = wanted.status
        ORDER BY currency LIMIT 1
    ))
    FROM unnest($6::text[]) AS wanted (status)
    UNION ALL
    SELECT status, (
        SELECT currency FROM payments
        WHERE tenant_id = $1 AND payments.status = pair.status AND payments.currency > pair.currency
        ORDER BY currency LIMIT 1
    )
    FROM pair WHERE pair.currency IS NOT NULL AND $7::text IS NULL
)
SELECT matching.* FROM pair CROSS JOIN LATERAL (
    SELECT * FROM payments
    WHERE tenant_id = $1
      AND payments.status = pair.status
      AND payments.currency = pair.currency
      AND (created_at, id) < ($2, $3::uuid)
      AND created_at >= coalesce($4::timestamptz, '-infinity')
    ORDER BY created_at DESC, id DESC
    LIMIT $5
) AS matching
ORDER BY created_at DESC, id DESC
LIMIT $5
"""

_CURRENT_URLS_SQL: Final = """
SELECT payments.tenant_id, payments.id, coalesce(payments.webhook_url, tenants.webhook_url) AS url
FROM unnest($1::uuid[], $2::uuid[]) AS wanted (tenant_id, id)
JOIN payments ON payments.tenant_id = wanted.tenant_id AND payments.id = wanted.id
JOIN tenants ON tenants.id = payments.tenant_id
"""
# Not by counting them: each creation adds to it.
_COUNT_BY_TENANT_SQL: Final = """
SELECT tenant_id, creations FROM creation_counters WHERE tenant_id = ANY ($1::uuid[])
"""


def state_columns(payment: Payment) -> tuple[Any, ...]:
    """status, failure_code, failure_message, refund_minor_units, refunded_at, refund_reason: what a transition sets."""
    return (
        payment.status.value,
        payment.failure_code,
        payment.failure_message,
        payment.refund.minor_units if payment.refund else None,
        payment.refunded_at,
        payment.refund_reason,
    )


async def update_details(connection: Connection, payment: Payment) -> None:
    """Write what a client may change at any time. The caller holds the row's lock."""
    await connection.execute(
        _UPDATE_DETAILS_SQL,
        payment.tenant_id,
        payment.id,
        payment.webhook_url,
        payment.description,
        jsonb(payment.metadata),
        payment.updated_at,
    )


async def current_urls(
    connection: Connection, payments: Iterable[tuple[UUID, UUID]]
) -> dict[tuple[UUID, UUID], str | None]:
    """Where the webhooks of payments, by tenant and id, are to go now: their own URL, or their tenant's default."""
    wanted = list(payments)
    rows = await connection.fetch(_CURRENT_URLS_SQL, [pair[0] for pair in wanted], [pair[1] for pair in wanted])
    return {(row["tenant_id"], row["id"]): row["url"] for row in rows}


async def count_by_tenant(connection: Connection, tenant_ids: list[UUID]) -> dict[UUID, int]:
    """Returns how many payments each of the tenants has made."""
    rows = await connection.fetch(_COUNT_BY_TENANT_SQL, tenant_ids)
    return {row["tenant_id"]: row["creations"] for row in rows}


async def by_id(connection: Connection, tenant_id: UUID, payment_id: UUID) -> Payment | None:
    return _payment_of(await connection.fetchrow(_BY_ID_SQL, tenant_id, payment_id))


async def by_id_locked(connection: Connection, tenant_id: UUID, payment_id: UUID) -> Payment | None:
    """Of two racing transitions the second waits here, and then sees what the first did."""
    return _payment_of(await connection.fetchrow(_BY_ID_LOCKED_SQL, tenant_id, payment_id))


async def page(connection: Connection, tenant_id: UUID, query: ListPayments) -> list[Payment]:
    """Newest first; one more than the limit if there are more."""
    cursor = _start(query)
    place = tenant_id, cursor.created_at, cursor.id, query.created_from, query.limit + 1
    if query.status is None and query.currency is None:
        rows = await connection.fetch(_LIST_SQL, *place)
    else:
        rows = await connection.fetch(
            _FILTERED_LIST_SQL, *place, [query.status] if query.status else Status, query.currency
        )
    return [payment_of(dict(row)) for row in rows]


def _start(query: ListPayments) -> Cursor:
    """Above the first row to show. No id is below zero: what comes before that id was created before that time."""
    cursor = query.cursor or _BEFORE_ALL
    if query.created_to is None:
        return cursor
    return min(cursor, Cursor(query.created_to, UUID(int=0)), key=lambda place: (place.created_at, place.id))


def _payment_of(row: asyncpg.Record | None) -> Payment | None:
    return None if row is None else payment_of(dict(row))


def payment_of(columns: dict[str, Any]) -> Payment:
    """From all columns of its row, and no others."""
    currency = columns.pop("currency")
    money = Money(columns.pop("amount_minor_units"), currency)
    refund = columns.pop("refund_minor_units")
    metadata = columns.pop("metadata")
    planned = {name: columns.pop(f"outcome_{name}") for name in ("status", "failure_code", "seed", "due_at")}
    return Payment(
        **columns | {"status": Status(columns["status"])},
        money=money,
        refund=None if refund is None else Money(refund, currency),
        metadata=None if metadata is None else Metadata(exact_json.decode(metadata)),
        outcome=_planned_of(planned),
    )


def _planned_of(columns: dict[str, Any]) -> Planned | None:
    if columns["status"] is None:
        return None
    code = columns["failure_code"]
    return Planned(
        status=Status(columns["status"]),
        failure_code=FailureCode(code) if code else None,
        seed=columns["seed"],
        due_at=columns["due_at"],
    )
