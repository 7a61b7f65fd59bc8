"""Waits of the queue, after the database's clock was set back: what was to come in a minute would come in an hour."""

import time
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog

from mockpay.cursor import FIRST_ID
from mockpay.postgres.pool import Database

# A wait that began later than now began before the clock was set back, and begins anew. It does not end at once: its
# receiver is to be left alone for that long, and of what is claimed an attempt may be under way. The second is for what
# begins just now. What another transaction holds is left for the next time, so that they can't wait for each other.
# From tenant to tenant, and of each in the order of time from now on: what is due is not looked at, be it a million.
# The limits are no parameters, or the planner would expect a tenth of all that waits, and read the whole table.
_BEGIN_ANEW_SQL: Final = """
WITH RECURSIVE tenant AS (
    SELECT $1::uuid AS id, $2::timestamptz AS since, $3::uuid AS after
    UNION ALL
    SELECT (
        SELECT tenant_id FROM webhook_deliveries
        WHERE status = 'pending' AND tenant_id > tenant.id
        ORDER BY tenant_id, next_attempt_at, id LIMIT 1
    ), now(), '00000000-0000-0000-0000-000000000000'
    FROM tenant WHERE tenant.id IS NOT NULL
),
slice AS (
    SELECT delivery.* FROM tenant CROSS JOIN LATERAL (
        SELECT tenant_id, id, next_attempt_at, waits_since FROM webhook_deliveries
        WHERE status = 'pending' AND tenant_id = tenant.id AND (next_attempt_at, id) > (tenant.since, tenant.after)
        ORDER BY next_attempt_at, id LIMIT 1000
    ) AS delivery
    LIMIT 1000
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
SELECT last.tenant_id, last.next_attempt_at, last.id, (SELECT count(*) FROM mended) AS mended,
       (SELECT count(*) FROM misplaced) - (SELECT count(*) FROM mended) AS left_over
FROM slice AS last ORDER BY last.tenant_id DESC, last.next_attempt_at DESC, last.id DESC LIMIT 1
"""
_NOW_SQL: Final = "SELECT now()"
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
    last = FIRST_ID, now.database, FIRST_ID
    mended = left_over = 0
    while True:
        async with database.connection() as connection:
            row = await connection.fetchrow(_BEGIN_ANEW_SQL, *last)
        if row is None:
            break
        last = row["tenant_id"], row["next_attempt_at"], row["id"]
        mended += row["mended"]
        left_over += row["left_over"]
    if mended:
        log.warning("the clock was set back; webhooks that would wait for longer begin to wait anew", deliveries=mended)
    return None if left_over else now
