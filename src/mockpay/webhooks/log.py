"""What became of deliveries: read it, replay it, forget the old."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from mockpay.postgres.pool import Connection
from mockpay.types import Id, Moment
from mockpay.webhooks.address import receiver_host

_OF_PAYMENT_SQL: Final = """
SELECT * FROM webhook_deliveries WHERE tenant_id = $1 AND payment_id = $2 ORDER BY created_at, id
"""
_PAGE_SQL: Final = """
SELECT * FROM webhook_deliveries
WHERE tenant_id = $1 AND id < $2 AND ($3::text IS NULL OR status = $3)
ORDER BY id DESC LIMIT $4
"""
# Dead letters apart, with the status spelled out: only so has a prepared statement the use of their small index.
_DEAD_PAGE_SQL: Final = """
SELECT * FROM webhook_deliveries WHERE tenant_id = $1 AND id < $2 AND status = 'dead' ORDER BY id DESC LIMIT $3
"""
_DEAD_LETTERS_SQL: Final = """
SELECT * FROM webhook_deliveries
WHERE status = 'dead' AND id < $1
  AND ($2::uuid IS NULL OR tenant_id = $2)
  AND ($3::uuid IS NULL OR payment_id = $3)
  AND ($4::text IS NULL OR event = $4)
  AND ($5::text IS NULL OR last_error = $5)
  AND ($6::timestamptz IS NULL OR finished_at >= $6)
  AND ($7::timestamptz IS NULL OR finished_at < $7)
ORDER BY id DESC LIMIT $8
"""
_COUNT_DEAD_LETTERS_SQL: Final = """
SELECT count(*) FROM webhook_deliveries
WHERE status = 'dead'
  AND ($1::uuid IS NULL OR tenant_id = $1)
  AND ($2::uuid IS NULL OR payment_id = $2)
  AND ($3::text IS NULL OR event = $3)
  AND ($4::text IS NULL OR last_error = $4)
  AND ($5::timestamptz IS NULL OR finished_at >= $5)
  AND ($6::timestamptz IS NULL OR finished_at < $6)
"""
_ATTEMPTS_SQL: Final = """
SELECT delivery_id, attempt, copy, url, started_at, duration_milliseconds, response_status, response_body, error,
       fault, sent_headers, sent_body
FROM delivery_attempts WHERE tenant_id = $1 AND delivery_id = ANY ($2::uuid[]) ORDER BY delivery_id, attempt, copy
"""
_BY_ID_LOCKED_SQL: Final = "SELECT * FROM webhook_deliveries WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE"
# Without a tenant in hand: one look into the primary key for each tenant, rather than a scan of the table. The inner
# limit keeps the planner from joining the two in another way.
_TENANT_OF_SQL: Final = """
SELECT tenants.id FROM tenants
CROSS JOIN LATERAL (
    SELECT FROM webhook_deliveries WHERE tenant_id = tenants.id AND webhook_deliveries.id = $1 LIMIT 1
) AS delivery
"""
# The attempts go on counting, so that each keeps its number in the log; the limit and the backoff start anew. Locked in
# one order, so that two of these can't wait for each other.
_REPLAY_SQL: Final = """
WITH target AS (
    SELECT delivery.tenant_id, delivery.id, wanted.url, wanted.receiver_host
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) AS wanted (tenant_id, id, url, receiver_host)
    JOIN webhook_deliveries AS delivery ON delivery.tenant_id = wanted.tenant_id AND delivery.id = wanted.id
    WHERE delivery.status = ANY ($6::text[])
    ORDER BY delivery.tenant_id, delivery.id
    FOR NO KEY UPDATE OF delivery
)
UPDATE webhook_deliveries AS delivery
SET status = 'pending', url = target.url, receiver_host = target.receiver_host, next_attempt_at = now(),
    waits_since = now(), finished_at = NULL,
    attempts_before_replay = delivery.attempts, max_attempts = delivery.attempts + $5
FROM target
WHERE delivery.tenant_id = target.tenant_id AND delivery.id = target.id
RETURNING delivery.*
"""
# Not by counting them: a million may wait.
_QUEUE_SQL: Final = """
SELECT coalesce(sum(rows) FILTER (WHERE label = 'pending'), 0)::bigint AS pending,
       coalesce(sum(rows) FILTER (WHERE label = 'dead'), 0)::bigint AS dead,
       (
           SELECT coalesce(greatest(extract(epoch FROM now() - min(created_at)), 0), 0)::float8
           FROM webhook_deliveries WHERE status = 'pending'
       ) AS oldest_pending_seconds
FROM rollups WHERE figure = 'deliveries'
"""
FORGOTTEN_AT_ONCE: Final = 1000
# Attempts and deliveries in one statement. It goes along the index of what is delivered from `$1`, where the one before
# it ended: at the start of the index stands what that one removed. The limit is no parameter: of one the planner
# expects a tenth of the table, and would read all of it.
_FORGET_DELIVERED_SQL: Final = """
WITH old AS (
    SELECT tenant_id, id, finished_at FROM webhook_deliveries
    WHERE status = 'delivered' AND finished_at >= $1 AND finished_at < now() - $2::interval
    ORDER BY finished_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
),
forgotten_attempts AS (
    DELETE FROM delivery_attempts AS attempt USING old
    WHERE attempt.tenant_id = old.tenant_id AND attempt.delivery_id = old.id
),
forgotten AS (
    DELETE FROM webhook_deliveries AS delivery USING old
    WHERE delivery.tenant_id = old.tenant_id AND delivery.id = old.id
    RETURNING delivery.finished_at
)
SELECT count(*) AS count, max(finished_at) AS latest FROM forgotten
"""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """`copy` is above 0 for what a fault sent beside the attempt. `sent_headers`, JSON, and `sent_body` are there where
    it spoilt what was sent.
    """

    attempt: int
    copy: int
    url: str
    started_at: datetime
    duration_milliseconds: int | None
    response_status: int | None
    response_body: str | None
    error: str | None
    fault: str | None
    sent_headers: str | None
    sent_body: str | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """`finished_at` is when it was delivered, or given up."""

    tenant_id: UUID
    id: UUID
    payment_id: UUID
    event_id: UUID
    event: str
    url: str
    payload: str
    status: str
    attempts: int
    max_attempts: int
    next_attempt_at: datetime
    last_error: str | None
    created_at: datetime
    finished_at: datetime | None
    fault: str | None
    fault_rule: UUID | None
    attempt_log: list[Attempt] = []


class DeadLetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters; None is any. `failed_from` is inclusive, `failed_to` exclusive.

    The body of POST /api/admin/dlq/replay, and the query of GET /api/admin/dlq.
    """

    tenant_id: Id | None = None
    payment_id: Id | None = None
    event: str | None = None
    last_error: str | None = None
    failed_from: Moment | None = None
    failed_to: Moment | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery to replay, and where to."""

    tenant_id: UUID
    id: UUID
    url: str


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """`oldest_pending_seconds` is the age of the event that waits longest; 0 if none does."""

    pending: int
    dead: int
    oldest_pending_seconds: float


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """`latest` is when the last one of them was delivered; None if there is none."""

    count: int
    latest: datetime | None


async def of_payment(connection: Connection, tenant_id: UUID, payment_id: UUID) -> list[Delivery]:
    """The deliveries of one payment with every attempt, oldest first."""
    rows = await connection.fetch(_OF_PAYMENT_SQL, tenant_id, payment_id)
    return await _with_attempts(connection, tenant_id, rows)


async def page(
    connection: Connection, tenant_id: UUID, *, before: UUID, status: str | None, limit: int
) -> list[Delivery]:
    """A tenant's deliveries with every attempt, newest first."""
    if status == "dead":
        rows = await connection.fetch(_DEAD_PAGE_SQL, tenant_id, before, limit)
    else:
        rows = await connection.fetch(_PAGE_SQL, tenant_id, before, status, limit)
    return await _with_attempts(connection, tenant_id, rows)


async def dead_letters(connection: Connection, wanted: DeadLetterFilter, *, before: UUID, limit: int) -> list[Delivery]:
    """Over all tenants, newest first, without their attempts."""
    rows = await connection.fetch(_DEAD_LETTERS_SQL, before, *msgspec.structs.astuple(wanted), limit)
    return [_delivery(row) for row in rows]


async def count_dead_letters(connection: Connection, wanted: DeadLetterFilter) -> int:
    count: int = await connection.fetchval(_COUNT_DEAD_LETTERS_SQL, *msgspec.structs.astuple(wanted))
    return count


async def by_id_locked(connection: Connection, tenant_id: UUID, id_: UUID) -> Delivery | None:
    """With every attempt. Of two that would replay it the second waits here, and then sees what the first did."""
    rows = await connection.fetch(_BY_ID_LOCKED_SQL, tenant_id, id_)
    found = await _with_attempts(connection, tenant_id, rows)
    return found[0] if found else None


async def tenant_of(connection: Connection, id_: UUID) -> UUID | None:
    tenant_id: UUID | None = await connection.fetchval(_TENANT_OF_SQL, id_)
    return tenant_id


async def replay(
    connection: Connection, targets: list[Target], *, max_attempts: int, of_status: list[str]
) -> list[Delivery]:
    """Queue them anew, to be sent at once. Those in another status than `of_status` are left alone."""
    rows = await connection.fetch(
        _REPLAY_SQL,
        [target.tenant_id for target in targets],
        [target.id for target in targets],
        [target.url for target in targets],
        [receiver_host(target.url) for target in targets],
        max_attempts,
        of_status,
    )
    return [_delivery(row) for row in rows]


async def queue_state(connection: Connection) -> QueueState:
    """Over all tenants."""
    row = await connection.fetchrow(_QUEUE_SQL)
    assert row is not None
    return QueueState(**dict(row))


async def forget_delivered(connection: Connection, *, since: datetime, age: timedelta) -> Forgotten:
    """Deletes up to FORGOTTEN_AT_ONCE that were delivered longer than `age` ago, and not before `since`, oldest first.

    Dead ones stay, and so do those that another transaction holds.
    """
    row = await connection.fetchrow(_FORGET_DELIVERED_SQL, since, age)
    assert row is not None, "a count has one row"
    return Forgotten(**dict(row))


async def _with_attempts(connection: Connection, tenant_id: UUID, rows: list[asyncpg.Record]) -> list[Delivery]:
    log: dict[UUID, list[Attempt]] = {row["id"]: [] for row in rows}
    for row in await connection.fetch(_ATTEMPTS_SQL, tenant_id, list(log)):
        columns = dict(row)
        log[columns.pop("delivery_id")].append(Attempt(**columns))
    return [_delivery(row, log[row["id"]]) for row in rows]


def _delivery(row: asyncpg.Record, attempt_log: list[Attempt] | None = None) -> Delivery:
    columns = {name: row[name] for name in Delivery.__struct_fields__ if name != "attempt_log"}
    return Delivery(**columns, attempt_log=attempt_log or [])
