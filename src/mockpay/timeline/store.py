"""Where the timeline's entries are read from: each kind from its own table, along an index in the order of time.

A page is of one tenant, or of one payment. All begin after a place in time, and end before a moment.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from mockpay.cursor import Cursor
from mockpay.postgres.pool import Connection

Row = dict[str, Any]

_CHANGES_SQL: Final = """
SELECT created_at AS at, id, payment_id, old_status, new_status, triggered_by, metadata FROM audit_log
WHERE tenant_id = $1 AND (created_at, id) > ($2, $3::uuid) AND created_at < $4
ORDER BY created_at, id LIMIT $5
"""
# What is of one payment is found first, and put in order then: it is little, and a planner that does not know how
# little might go through the whole of time for it.
_CHANGES_OF_PAYMENT_SQL: Final = """
WITH own AS MATERIALIZED (SELECT * FROM audit_log WHERE tenant_id = $1 AND payment_id = $6)
SELECT created_at AS at, id, payment_id, old_status, new_status, triggered_by, metadata FROM own
WHERE (created_at, id) > ($2, $3::uuid) AND created_at < $4
ORDER BY created_at, id LIMIT $5
"""
_WEBHOOKS_SQL: Final = """
SELECT created_at AS at, id, payment_id, event, url, fault, fault_rule FROM webhook_deliveries
WHERE tenant_id = $1 AND (created_at, id) > ($2, $3::uuid) AND created_at < $4
ORDER BY created_at, id LIMIT $5
"""
_WEBHOOKS_OF_PAYMENT_SQL: Final = """
WITH own AS MATERIALIZED (SELECT * FROM webhook_deliveries WHERE tenant_id = $1 AND payment_id = $6)
SELECT created_at AS at, id, payment_id, event, url, fault, fault_rule FROM own
WHERE (created_at, id) > ($2, $3::uuid) AND created_at < $4
ORDER BY created_at, id LIMIT $5
"""
_ATTEMPTS_SQL: Final = """
SELECT attempt.started_at AS at, attempt.delivery_id AS id,
       delivery.payment_id, delivery.event, attempt.attempt, attempt.copy, attempt.response_status, attempt.error,
       attempt.fault, CASE WHEN attempt.fault IS NOT NULL THEN delivery.fault_rule END AS fault_rule
FROM delivery_attempts AS attempt
JOIN webhook_deliveries AS delivery ON delivery.tenant_id = attempt.tenant_id AND delivery.id = attempt.delivery_id
WHERE attempt.tenant_id = $1 AND attempt.started_at < $4
  AND (attempt.started_at, attempt.delivery_id) > ($2, $3::uuid)
ORDER BY attempt.started_at, attempt.delivery_id LIMIT $5
"""
_ATTEMPTS_OF_PAYMENT_SQL: Final = """
WITH own AS MATERIALIZED (SELECT * FROM webhook_deliveries WHERE tenant_id = $1 AND payment_id = $6)
SELECT attempt.started_at AS at, attempt.delivery_id AS id,
       delivery.payment_id, delivery.event, attempt.attempt, attempt.copy, attempt.response_status, attempt.error,
       attempt.fault, CASE WHEN attempt.fault IS NOT NULL THEN delivery.fault_rule END AS fault_rule
FROM own AS delivery
JOIN delivery_attempts AS attempt ON attempt.tenant_id = delivery.tenant_id AND attempt.delivery_id = delivery.id
WHERE attempt.started_at < $4
  AND (attempt.started_at, attempt.delivery_id) > ($2, $3::uuid)
ORDER BY attempt.started_at, attempt.delivery_id LIMIT $5
"""


async def changes(
    connection: Connection, tenant_id: UUID, payment_id: UUID | None, after: Cursor, until: datetime, limit: int
) -> list[Row]:
    """Of status, as the audit trail has them."""
    start = (tenant_id, after.created_at, after.id, until, limit)
    if payment_id is None:
        return _rows(await connection.fetch(_CHANGES_SQL, *start))
    return _rows(await connection.fetch(_CHANGES_OF_PAYMENT_SQL, *start, payment_id))


async def webhooks(
    connection: Connection, tenant_id: UUID, payment_id: UUID | None, after: Cursor, until: datetime, limit: int
) -> list[Row]:
    start = (tenant_id, after.created_at, after.id, until, limit)
    if payment_id is None:
        return _rows(await connection.fetch(_WEBHOOKS_SQL, *start))
    return _rows(await connection.fetch(_WEBHOOKS_OF_PAYMENT_SQL, *start, payment_id))


async def attempts(
    connection: Connection, tenant_id: UUID, payment_id: UUID | None, after: Cursor, until: datetime, limit: int
) -> list[Row]:
    start = (tenant_id, after.created_at, after.id, until, limit)
    if payment_id is None:
        return _rows(await connection.fetch(_ATTEMPTS_SQL, *start))
    return _rows(await connection.fetch(_ATTEMPTS_OF_PAYMENT_SQL, *start, payment_id))


def _rows(records: list[asyncpg.Record]) -> list[Row]:
    return [dict(record) for record in records]
