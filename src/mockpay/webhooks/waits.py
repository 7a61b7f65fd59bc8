"""Waits of the queue, after the database's clock was set back: what was to come in a minute would come in an hour."""

import time
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import structlog

from mockpay.postgres.pool import Database

# A wait that began later than now began before the clock was set back, and begins anew. It does not end at once: its
# receiver is to be left alone for that long, and of what is claimed an attempt may be under way. The second is for what
# begins just now. What another transaction holds is left for the next time, so that they can't wait for each other.
# The limit is no parameter, or the planner would expect a tenth of all that waits, and read the whole table.
_BEGIN_ANEW_SQL: Final = """
WITH slice AS (
    SELECT tenant_id, id, next_attempt_at, waits_since FROM webhook_deliveries
    WHERE status = 'pending' AND next_attempt_at > now() AND (next_attempt_at, id) > ($1::timestamptz, $2::uuid)
    ORDER BY next_attempt_at, id LIMIT 5000
),
misplaced AS (
    SELECT tenant_id, id FROM slice WHERE waits_since > now() + interval '1 second'
),
held AS (
    SELECT delivery.tenant_id, delivery.id
    FROM webhook_deliveries AS delivery JOIN misplaced USING (tenant_id, id)
    WHERE delivery.status = 'pending' AND delivery.waits_since > now() + interval '1 second'
    FOR NO KEY UPDATE OF delivery SKIP LOCKED
),
mended AS (
    UPDATE webhook_deliveries AS delivery
    SET next_attempt_at = now() + (next_attempt_at - waits_since), waits_since = now()
    FROM held WHERE delivery.tenant_id = held.tenant_id AND delivery.id = held.id
    RETURNING delivery.id
)
SELECT last.next_attempt_at, last.id, (SELECT count(*) FROM mended) AS mended,
       (SELECT count(*) FROM misplaced) - (SELECT count(*) FROM mended) AS left_over
FROM (SELECT next_attempt_at, id FROM slice ORDER BY next_attempt_at DESC, id DESC LIMIT 1) AS last
"""
_NOW_SQL: Final = "SELECT now()"
_LOWEST_ID: Final = UUID(int=0)
_TOLERANCE: Final = timedelta(seconds=1)

log = structlog.stdlib.get_logger("mockpay.webhooks")


class Look(NamedTuple):
    """At the database's clock, and at one of this process that nobody sets, in seconds."""

    database: datetime
    monotonic: float


async def mend(database: Database, before: Look | None) -> Look | None:
    """See that no delivery waits for longer than it was meant to.

    `before` is what this returned the last time. Where nobody looked yet, or something is left over, it is None, and
    the whole queue is looked through; else only if less time went by for the database than for this process.
    """
    async with database.connection() as connection:
        now = Look(await connection.fetchval(_NOW_SQL), time.monotonic())
    if before is not None:
        passed = timedelta(seconds=now.monotonic - before.monotonic)
        if now.database >= before.database + passed - _TOLERANCE:
            return now
    last = now.database, _LOWEST_ID
    mended = left_over = 0
    while True:
        async with database.connection() as connection:
            row = await connection.fetchrow(_BEGIN_ANEW_SQL, *last)
        if row is None:
            break
        last = row["next_attempt_at"], row["id"]
        mended += row["mended"]
        left_over += row["left_over"]
    if mended:
        log.warning("the clock was set back; webhooks that would wait for longer begin to wait anew", deliveries=mended)
    return None if left_over else now
