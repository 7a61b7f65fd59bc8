"""How a worker comes by its deliveries: it looks at what is due, tenant by tenant, chooses, and takes what it chose."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from mockpay.postgres.pool import Connection
from mockpay.webhooks.shares import Due, Limits, Load, Round, UnderWay, choose, is_hindered
from mockpay.webhooks.store import Claim

TENANT_STEPS_MAX: Final = 1000
"""Tenants that one claim looks at, and how many of them may have something due."""
TENANTS_MAX: Final = 100
ROWS_MIN: Final = 8
"""Deliveries that are read of each tenant at least, where many share the room that there is."""
HOST_STEPS_MAX: Final = 200
"""Hosts that one claim looks at, of all tenants together; but of each tenant two at least."""
HOST_STEPS_MIN: Final = 2

# From tenant to tenant along the index, each found by one look, from the one at which the claim before ended. A tenant
# at its share is passed over. So are those of whom nothing is due, but they cost a look: after a thousand looks, or a
# hundred tenants, it is the next claim's turn. Times are the database's (`$1` replaces them in tests), so the clocks of
# the workers need not agree; now() and not clock_timestamp(), since the index can be searched for a value that is fixed
# during the statement. The limits that are no parameters keep the planner from expecting a tenth of all that waits, for
# which it would read the whole table.
_LOOK_SQL: Final = """
WITH RECURSIVE walk AS (
    SELECT $2::uuid AS tenant_id, FALSE AS is_due, 0 AS steps, 0 AS found
    UNION ALL
    SELECT following.tenant_id, following.is_due, walk.steps + 1, walk.found + following.is_due::integer
    FROM walk CROSS JOIN LATERAL (
        SELECT tenant_id,
               next_attempt_at <= coalesce($1::timestamptz, now()) AND tenant_id <> ALL ($3::uuid[]) AS is_due
        FROM webhook_deliveries
        WHERE status = 'pending' AND tenant_id > walk.tenant_id
        ORDER BY tenant_id, next_attempt_at, id LIMIT 1
    ) AS following
    WHERE walk.steps < $5 AND walk.found < $6
),
reached AS (
    SELECT tenant_id, steps < $5 AND found < $6 AS is_end, greatest($8, $7::integer / greatest(found, 1)) AS rows_each
    FROM walk ORDER BY steps DESC LIMIT 1
),
due AS (
    SELECT first.* FROM walk CROSS JOIN reached CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT tenant_id, id, receiver_host, next_attempt_at
            FROM webhook_deliveries
            WHERE status = 'pending'
              -- A range of both, which no other index has, and is one tenant. Where nothing was analysed yet the
              -- planner takes a tenant for a row or two, and would sort them all.
              AND tenant_id >= walk.tenant_id
              AND (tenant_id, next_attempt_at) <= (walk.tenant_id, coalesce($1::timestamptz, now()))
              -- What this worker is sending now is due if the clock was set ahead, or if the worker froze for a while.
              AND id <> ALL ($4::uuid[])
            ORDER BY tenant_id, next_attempt_at, id LIMIT 1000
        ) AS of_tenant
        LIMIT reached.rows_each
    ) AS first
    WHERE walk.is_due
)
SELECT reached.tenant_id AS reached, reached.is_end, reached.rows_each, due.tenant_id, due.id, due.receiver_host,
       due.next_attempt_at
FROM reached LEFT JOIN due ON TRUE
"""
# The same, from host to host of each of the tenants `$2`, each from the host at which the look before ended: the
# backlog of a full host is not walked through, be it a million.
_LOOK_BY_HOST_SQL: Final = """
WITH RECURSIVE walk AS (
    SELECT tenant_id, receiver_host, FALSE AS is_open, 0 AS steps, 0 AS found
    FROM unnest($2::uuid[], $3::text[]) AS asked (tenant_id, receiver_host)
    UNION ALL
    SELECT walk.tenant_id, following.receiver_host, following.is_open, walk.steps + 1,
           walk.found + following.is_open::integer
    FROM walk CROSS JOIN LATERAL (
        SELECT receiver_host,
               next_attempt_at <= coalesce($1::timestamptz, now()) AND receiver_host <> ALL ($4::text[]) AS is_open
        FROM webhook_deliveries
        WHERE status = 'pending' AND tenant_id = walk.tenant_id AND receiver_host > walk.receiver_host
        ORDER BY receiver_host, next_attempt_at LIMIT 1
    ) AS following
    WHERE walk.steps < $6 AND walk.found < $7
),
reached AS (
    SELECT DISTINCT ON (tenant_id) tenant_id, receiver_host, steps < $6 AND found < $7 AS is_end, found
    FROM walk ORDER BY tenant_id, steps DESC
),
due AS (
    SELECT first.* FROM walk JOIN reached USING (tenant_id) CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT tenant_id, id, receiver_host, next_attempt_at
            FROM webhook_deliveries
            WHERE status = 'pending' AND tenant_id = walk.tenant_id AND receiver_host = walk.receiver_host
              AND next_attempt_at <= coalesce($1::timestamptz, now())
              AND id <> ALL ($5::uuid[])
            ORDER BY next_attempt_at LIMIT 100
        ) AS of_host
        LIMIT 1 + $7::integer / greatest(reached.found, 1)
    ) AS first
    WHERE walk.is_open
)
SELECT reached.tenant_id, reached.receiver_host AS reached, reached.is_end, due.id, due.receiver_host,
       due.next_attempt_at
FROM reached LEFT JOIN due USING (tenant_id)
"""
# What was chosen, unless another worker has taken it meanwhile.
_TAKE_SQL: Final = """
WITH present AS (
    SELECT coalesce($1::timestamptz, now()) AS now
),
-- Each by its key, and only then asked whether it still waits: the indexes of what waits would lead through all of it.
held AS (
    SELECT delivery.* FROM unnest($2::uuid[], $3::uuid[]) AS wanted (tenant_id, id)
    CROSS JOIN LATERAL (
        SELECT tenant_id, id, status, attempts, url, claimed_at, next_attempt_at FROM webhook_deliveries
        WHERE tenant_id = wanted.tenant_id AND id = wanted.id LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS delivery
),
chosen AS (
    SELECT tenant_id, id, attempts, url, claimed_at FROM held
    WHERE status = 'pending' AND next_attempt_at <= (SELECT now FROM present)
),
-- A claim that was never settled: its worker died or froze. The attempt counted, so it is logged.
lost AS (
    INSERT INTO delivery_attempts (tenant_id, delivery_id, attempt, url, started_at, error)
    SELECT tenant_id, id, attempts, url, claimed_at, 'worker_lost' FROM chosen WHERE claimed_at IS NOT NULL
    ON CONFLICT DO NOTHING
),
-- If that was the last attempt it has none left: a delivery that kills its worker must not do so for ever.
dead AS (
    UPDATE webhook_deliveries AS delivery
    SET status = 'dead', claimed_at = NULL, last_error = 'worker_lost', finished_at = present.now
    FROM chosen, present
    WHERE delivery.tenant_id = chosen.tenant_id AND delivery.id = chosen.id
      AND chosen.attempts >= delivery.max_attempts
)
UPDATE webhook_deliveries AS delivery
SET attempts = delivery.attempts + 1, claimed_at = present.now, next_attempt_at = present.now + $4::interval,
    waits_since = present.now
FROM chosen, present
WHERE delivery.tenant_id = chosen.tenant_id AND delivery.id = chosen.id
  AND chosen.attempts < delivery.max_attempts
RETURNING delivery.tenant_id, delivery.id, delivery.event_id, delivery.event, delivery.url, delivery.receiver_host,
          delivery.payload, delivery.attempts AS attempt, delivery.attempts_before_replay, delivery.max_attempts,
          delivery.fault, delivery.fault_seed,
          ARRAY(
              SELECT secret FROM webhook_secrets
              WHERE webhook_secrets.tenant_id = delivery.tenant_id
                AND (expires_at IS NULL OR expires_at > present.now)
              ORDER BY expires_at DESC NULLS FIRST LIMIT 2
          ) AS secrets,
          CASE WHEN starts_with(delivery.fault, 'old_secret') THEN (
              SELECT secret FROM webhook_secrets
              WHERE webhook_secrets.tenant_id = delivery.tenant_id AND expires_at IS NOT NULL
              ORDER BY expires_at DESC LIMIT 1
          ) END AS old_secret
"""


class Claimed(NamedTuple):
    """`is_idle` is whether all there is was looked at, and nothing found that the worker has room for."""

    claims: list[Claim]
    is_idle: bool


async def claim(
    connection: Connection,
    round_: Round,
    *,
    sending: Mapping[UUID, UnderWay],
    limits: Limits,
    lease: timedelta,
    now: datetime | None = None,
) -> Claimed:
    """Takes due deliveries for the time of `lease`, as many as `limits` leave room for beside what is being sent.

    `now` is the database's present if None. It is two statements, and a third where full hosts stand in the way. Only
    the last one changes anything, and it checks again what the others found.
    """
    look = _Look(connection, now, list(sending), Load(list(sending.values()), limits))
    due = await look.at_tenants(round_)
    chosen = choose(due, look.load, round_)
    is_idle = round_.ends([each.tenant_id for each in chosen])
    if not chosen:
        return Claimed([], is_idle)
    ids = [each.tenant_id for each in chosen], [each.id for each in chosen]
    rows = await connection.fetch(_TAKE_SQL, now, *ids, lease)
    return Claimed([Claim(**dict(row)) for row in rows], is_idle)


class _Look(NamedTuple):
    """At what is due, beside the deliveries with the ids `sending`."""

    connection: Connection
    now: datetime | None
    sending: list[UUID]
    load: Load

    async def at_tenants(self, round_: Round) -> list[Due]:
        rows = await self.connection.fetch(
            _LOOK_SQL, self.now, round_.tenant, self.load.full_tenants(), self.sending, TENANT_STEPS_MAX, TENANTS_MAX,
            self.load.room_of_any, ROWS_MIN,
        )  # fmt: skip
        round_.reached_tenant(rows[0]["reached"], is_end=rows[0]["is_end"])
        of_tenant: defaultdict[UUID, list[Due]] = defaultdict(list)
        for row in rows:
            if row["id"] is not None:
                of_tenant[row["tenant_id"]].append(_due(row))
        due = [each for own in of_tenant.values() for each in own]
        hindered = [
            tenant_id
            for tenant_id, own in of_tenant.items()
            if len(own) >= rows[0]["rows_each"] and is_hindered(own, self.load)
        ]
        return list({*due, *await self._at_hosts(hindered, round_)}) if hindered else due

    async def _at_hosts(self, tenants: list[UUID], round_: Round) -> list[Due]:
        rows = await self.connection.fetch(
            _LOOK_BY_HOST_SQL, self.now, tenants, [round_.host_of(each) for each in tenants], self.load.full_hosts(),
            self.sending, max(HOST_STEPS_MIN, HOST_STEPS_MAX // len(tenants)), self.load.room_of_any,
        )  # fmt: skip
        for row in rows:
            round_.reached_host(row["tenant_id"], row["reached"], is_end=row["is_end"])
        return [_due(row) for row in rows if row["id"] is not None]


def _due(row: asyncpg.Record) -> Due:
    return Due(row["tenant_id"], row["id"], row["receiver_host"], row["next_attempt_at"])
