"""The table of requests."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from mockpay.cursor import Cursor
from mockpay.journal.model import RequestEntry
from mockpay.postgres.parameters import columns_of
from mockpay.postgres.pool import Connection, Database

# The answers are sent already, and who can wait for the disk has nothing to wait for.
_NOT_TO_DISK_SQL: Final = "SELECT set_config('synchronous_commit', 'off', true)"
_INSERT_SQL: Final = """
INSERT INTO requests (tenant_id, id, started_at, request_id, method, path, operation, payment_id, idempotency_key,
                      status, replayed, duration_milliseconds, fault, fault_rule)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::uuid[], $9::text[], $10::integer[], $11::boolean[], $12::integer[], $13::text[], $14::uuid[])
ON CONFLICT DO NOTHING
"""
_PAGE_SQL: Final = """
SELECT * FROM requests WHERE tenant_id = $1 AND (started_at, id) > ($2, $3::uuid) AND started_at < $4
ORDER BY started_at, id LIMIT $5
"""
_OF_PAYMENT_SQL: Final = """
SELECT * FROM (
    SELECT * FROM requests WHERE tenant_id = $1 AND payment_id = $6
    UNION ALL
    SELECT * FROM requests WHERE tenant_id = $1 AND operation = 'create' AND idempotency_key = $7
) AS asked
WHERE (started_at, id) > ($2, $3::uuid) AND started_at < $4
ORDER BY started_at, id LIMIT $5
"""
FORGOTTEN_AT_ONCE: Final = 10_000
# Tenant by tenant, along the primary key. The limit is no parameter: of one the planner expects a tenth of the table.
_FORGET_SQL: Final = """
WITH old AS (
    SELECT request.tenant_id, request.started_at, request.id
    FROM tenants
    CROSS JOIN LATERAL (
        SELECT tenant_id, started_at, id FROM requests
        WHERE tenant_id = tenants.id AND started_at < now() - $1::interval
        ORDER BY started_at LIMIT 10000
        FOR UPDATE SKIP LOCKED
    ) AS request
    LIMIT 10000
),
forgotten AS (
    DELETE FROM requests AS request USING old
    WHERE request.tenant_id = old.tenant_id AND request.started_at = old.started_at AND request.id = old.id
    RETURNING request.id
)
SELECT count(*) FROM forgotten
"""


async def write(database: Database, entries: Sequence[RequestEntry]) -> None:
    """In a transaction of its own. An entry that is there already stays as it is. Raises DatabaseUnavailable."""
    records = [msgspec.structs.astuple(entry) for entry in entries]
    try:
        async with database.transaction() as connection:
            await connection.execute(_NOT_TO_DISK_SQL)
            await connection.copy_records_to_table("requests", records=records, columns=RequestEntry.__struct_fields__)
    except asyncpg.UniqueViolationError:  # a commit whose answer did not come back, so that they are written again
        async with database.transaction() as connection:
            await connection.execute(_INSERT_SQL, *columns_of(records, len(RequestEntry.__struct_fields__)))


async def page(
    connection: Connection, tenant_id: UUID, after: Cursor, until: datetime, limit: int
) -> list[RequestEntry]:
    """Oldest first."""
    return _entries(await connection.fetch(_PAGE_SQL, tenant_id, after.created_at, after.id, until, limit))


async def of_payment(
    connection: Connection, tenant_id: UUID, after: Cursor, until: datetime, limit: int, payment_id: UUID, key: str
) -> list[RequestEntry]:
    """Oldest first: those that name it, and those that made it, which had `key` as their idempotency key."""
    return _entries(
        await connection.fetch(_OF_PAYMENT_SQL, tenant_id, after.created_at, after.id, until, limit, payment_id, key)
    )


async def forget(connection: Connection, age: timedelta) -> int:
    """Delete up to FORGOTTEN_AT_ONCE that are older; how many it were."""
    count: int = await connection.fetchval(_FORGET_SQL, age)
    return count


def _entries(rows: list[asyncpg.Record]) -> list[RequestEntry]:
    return [RequestEntry(**dict(row)) for row in rows]
