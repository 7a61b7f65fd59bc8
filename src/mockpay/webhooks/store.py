"""The table of deliveries, which is also the queue."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from mockpay.postgres.parameters import columns_of
from mockpay.postgres.pool import Connection
from mockpay.webhooks.address import receiver_host
from mockpay.webhooks.tampering import WebhookFault

_ADD_SECRET_SQL: Final = """
INSERT INTO webhook_secrets (tenant_id, id, secret, created_at) VALUES ($1, $2, $3, $4)
"""
_CURRENT_SECRET_SQL: Final = "SELECT secret FROM webhook_secrets WHERE tenant_id = $1 AND expires_at IS NULL"
# A tenant has two at most, however often it rotates: a secret that was rotated out before goes now, in its grace period
# or not. The one that goes out stays when it no longer signs, for the fault that asks for it. Times are the database's,
# as in the claim.
_RETIRE_SECRET_SQL: Final = """
WITH forgotten AS (
    DELETE FROM webhook_secrets WHERE tenant_id = $1 AND expires_at IS NOT NULL
)
UPDATE webhook_secrets SET expires_at = now() + $2::interval WHERE tenant_id = $1 AND expires_at IS NULL
RETURNING expires_at
"""
_ENQUEUE_SQL: Final = """
INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts,
                                created_at, fault, fault_rule, next_attempt_at, fault_seed)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
        -- Not held back for the next event if an earlier one is: it is the next, and sets that one free.
        CASE WHEN starts_with($11, 'reorder') AND EXISTS (
            SELECT FROM webhook_deliveries
            WHERE tenant_id = $1 AND payment_id = $3 AND status = 'pending' AND attempts = 0
              AND starts_with(fault, 'reorder')
        ) THEN now() ELSE now() + $13::float8 * interval '1 second' END, $14)
"""

# The whole claim. Times are the database's (`$1` replaces them in tests), so the clocks of the workers need not agree.
# now() and not clock_timestamp(): the index can be searched for a value that is fixed during the statement.
_CLAIM_SQL: Final = """
WITH RECURSIVE present AS (
    SELECT coalesce($1::timestamptz, now()) AS now
),
in_flight AS (
    SELECT * FROM unnest($3::text[], $4::integer[]) AS host (receiver_host, sending)
),
-- Hosts that are at their limit are passed over here, so that their backlog can't hide the others' deliveries. Nor is
-- it walked through, be it a million: where there is such a host, what is due is looked up for each of the others; they
-- are found by going from each to the next. Where there is none, no host's name need be known. The limits that are no
-- parameters keep the planner from expecting a tenth of all that waits, for which it would read the whole table.
waiting AS (
    (
        SELECT receiver_host FROM webhook_deliveries
        WHERE status = 'pending' AND cardinality($7::text[]) > 0
        ORDER BY receiver_host LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT delivery.receiver_host FROM webhook_deliveries AS delivery
        WHERE delivery.status = 'pending' AND delivery.receiver_host > waiting.receiver_host
        ORDER BY delivery.receiver_host LIMIT 1
    )
    FROM waiting WHERE waiting.receiver_host IS NOT NULL
),
due AS (
    (
        SELECT * FROM (
            SELECT tenant_id, id, receiver_host, next_attempt_at
            FROM webhook_deliveries
            WHERE status = 'pending'
              AND next_attempt_at <= coalesce($1::timestamptz, now())
              AND cardinality($7::text[]) = 0
              -- What this worker is sending now is due if the clock was set ahead, or if the worker froze for a while.
              AND id <> ALL ($8::uuid[])
            ORDER BY next_attempt_at LIMIT 1000
        ) AS of_any
        LIMIT $2::integer * 4
    )
    UNION ALL
    SELECT of_host.* FROM waiting CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT tenant_id, id, receiver_host, next_attempt_at
            FROM webhook_deliveries
            WHERE status = 'pending'
              -- A range of both, which no other index has, and is one host.
              AND receiver_host >= waiting.receiver_host
              AND (receiver_host, next_attempt_at) <= (waiting.receiver_host, coalesce($1::timestamptz, now()))
              AND id <> ALL ($8::uuid[])
            ORDER BY receiver_host, next_attempt_at LIMIT 100
        ) AS first
        LIMIT $5
    ) AS of_host
    WHERE waiting.receiver_host <> ALL ($7::text[])
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY receiver_host ORDER BY next_attempt_at) AS place FROM due
),
chosen AS (
    SELECT delivery.tenant_id, delivery.id, delivery.attempts, delivery.url, delivery.claimed_at
    FROM ranked
    JOIN webhook_deliveries AS delivery ON delivery.tenant_id = ranked.tenant_id AND delivery.id = ranked.id
    LEFT JOIN in_flight ON in_flight.receiver_host = ranked.receiver_host
    WHERE ranked.place <= $5::integer - coalesce(in_flight.sending, 0)
      -- Again, of the row that gets locked: another worker may have claimed it since.
      AND delivery.status = 'pending'
      AND delivery.next_attempt_at <= coalesce($1::timestamptz, now())
    ORDER BY ranked.next_attempt_at
    LIMIT $2
    FOR UPDATE OF delivery SKIP LOCKED
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
SET attempts = delivery.attempts + 1, claimed_at = present.now, next_attempt_at = present.now + $6::interval,
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
              ORDER BY expires_at DESC NULLS FIRST
          ) AS secrets,
          CASE WHEN starts_with(delivery.fault, 'old_secret') THEN (
              SELECT secret FROM webhook_secrets
              WHERE webhook_secrets.tenant_id = delivery.tenant_id AND expires_at IS NOT NULL
              ORDER BY expires_at DESC LIMIT 1
          ) END AS old_secret
"""

# Fenced on the attempt: a worker that was frozen past its lease finds that the delivery has moved on.
_SETTLE_SQL: Final = """
WITH result AS (
    SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::integer[], $5::text[], $6::interval[], $7::text[])
        AS result (tenant_id, id, attempt, status, delay, last_error)
),
settled AS (
    UPDATE webhook_deliveries AS delivery
    SET status = result.status,
        claimed_at = NULL,
        next_attempt_at = coalesce($1::timestamptz, now()) + result.delay,
        waits_since = coalesce($1::timestamptz, now()),
        last_error = result.last_error,
        finished_at = CASE WHEN result.status = 'pending' THEN NULL ELSE coalesce($1::timestamptz, now()) END
    FROM result
    WHERE delivery.tenant_id = result.tenant_id AND delivery.id = result.id AND delivery.attempts = result.attempt
      AND delivery.status = 'pending' AND delivery.claimed_at IS NOT NULL
    RETURNING delivery.tenant_id, delivery.id, delivery.payment_id, delivery.url, delivery.attempts, delivery.status
),
-- What a fault held back so that it comes after one that is over now.
released AS (
    UPDATE webhook_deliveries AS held
    SET next_attempt_at = coalesce($1::timestamptz, now()), waits_since = coalesce($1::timestamptz, now())
    FROM settled
    WHERE held.tenant_id = settled.tenant_id AND held.payment_id = settled.payment_id AND held.id <> settled.id
      AND held.status = 'pending' AND held.attempts = 0 AND starts_with(held.fault, 'reorder')
      AND settled.status <> 'pending'
),
logged AS (
    INSERT INTO delivery_attempts
        (tenant_id, delivery_id, attempt, copy, url, fault, started_at, duration_milliseconds, response_status,
         response_body, error, sent_headers, sent_body)
    -- The copies of an attempt began with it. A microsecond each gives them an order that a cursor can tell apart.
    SELECT settled.tenant_id, settled.id, settled.attempts, sent.copy, settled.url, sent.fault,
           sent.started_at + sent.copy * interval '1 microsecond', sent.duration_milliseconds, sent.response_status,
           sent.response_body, sent.error, sent.headers, sent.body
    FROM settled
    JOIN unnest($8::uuid[], $9::uuid[], $10::integer[], $11::integer[], $12::text[], $13::timestamptz[],
                $14::integer[], $15::integer[], $16::text[], $17::text[], $18::jsonb[], $19::text[])
        AS sent (tenant_id, id, attempt, copy, fault, started_at, duration_milliseconds, response_status,
                 response_body, error, headers, body)
        ON sent.tenant_id = settled.tenant_id AND sent.id = settled.id AND sent.attempt = settled.attempts
)
SELECT tenant_id, id, attempts FROM settled
"""


class NewDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """An event on its way to a receiver. `payload` is the exact body.

    `fault` is what shall happen to it, by the rule with the id `fault_rule`; what is left to chance later comes from
    `fault_seed`.
    """

    tenant_id: UUID
    id: UUID
    payment_id: UUID
    event_id: UUID
    event: str
    url: str
    payload: bytes
    max_attempts: int
    created_at: datetime
    fault: WebhookFault | None = None
    fault_rule: UUID | None = None
    fault_seed: int | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one delivery, leased to this worker. `attempt` counts from 1 and fences the result.

    `attempts_before_replay` are those that its backoff does not count. `old_secret` is there if a fault asks for it.
    """

    tenant_id: UUID
    id: UUID
    event_id: UUID
    event: str
    url: str
    receiver_host: str
    payload: str
    attempt: int
    attempts_before_replay: int
    max_attempts: int
    secrets: list[str]
    fault: str | None = None
    fault_seed: int | None = None
    old_secret: str | None = None


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One message of an attempt, and what came back. `headers`, as JSON, and `body` are kept where a fault acted."""

    duration_milliseconds: int
    response_status: int | None = None
    response_body: str | None = None
    error: str | None = None
    headers: str | None = None
    body: str | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an attempt, and what that makes of the delivery: delivered, dead, or pending after `delay`.

    Of several messages, which a fault made of one, `telling` is the one that decided.
    """

    status: str
    delay: timedelta
    started_at: datetime
    fault: str | None
    sent: list[Sent]
    telling: Sent

    @property
    def last_error(self) -> str | None:
        if self.status == "delivered":
            return None
        return self.telling.error or f"http_{self.telling.response_status}"


async def add_secret(connection: Connection, tenant_id: UUID, id_: UUID, secret: str, now: datetime) -> None:
    await connection.execute(_ADD_SECRET_SQL, tenant_id, id_, secret, now)


async def retire_secret(connection: Connection, tenant_id: UUID, grace: timedelta) -> datetime:
    """Lets the current secret expire after `grace`, and returns when that is. The one before it is forgotten.

    The caller holds the tenant's lock.
    """
    expires_at: datetime = await connection.fetchval(_RETIRE_SECRET_SQL, tenant_id, grace)
    return expires_at


async def current_secret(connection: Connection, tenant_id: UUID) -> str:
    secret = await connection.fetchval(_CURRENT_SECRET_SQL, tenant_id)
    assert isinstance(secret, str), "every tenant has a webhook secret"
    return secret


async def enqueue(connection: Connection, delivery: NewDelivery) -> None:
    """In the caller's transaction: the event exists if, and only if, what it tells of does."""
    await connection.execute(
        _ENQUEUE_SQL,
        *delivery_columns(delivery),
        str(delivery.fault) if delivery.fault else None,
        delivery.fault_rule,
        delivery.fault.held_seconds if delivery.fault else 0.0,
        delivery.fault_seed,
    )


def delivery_columns(delivery: NewDelivery) -> tuple[Any, ...]:
    """tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts, created_at."""
    return (
        delivery.tenant_id,
        delivery.id,
        delivery.payment_id,
        delivery.event_id,
        delivery.event,
        delivery.url,
        receiver_host(delivery.url),
        delivery.payload.decode(),
        delivery.max_attempts,
        delivery.created_at,
    )


async def claim(
    connection: Connection,
    *,
    limit: int,
    sending: Mapping[UUID, str],
    per_host: int,
    lease: timedelta,
    now: datetime | None = None,
) -> list[Claim]:
    """Take up to `limit` due deliveries for the time of `lease`.

    `sending` is what this worker has under way: the ids of deliveries, and the host of each one's receiver, of which it
    may have `per_host` at most. `now` is the database's present if None.
    """
    of_host = Counter(sending.values())
    full_hosts = [host for host, count in of_host.items() if count >= per_host]
    rows = await connection.fetch(
        _CLAIM_SQL, now, limit, list(of_host), list(of_host.values()), per_host, lease, full_hosts, list(sending)
    )
    return [Claim(**dict(row)) for row in rows]


async def settle(
    connection: Connection, settled: Sequence[tuple[Claim, Result]], now: datetime | None = None
) -> list[bool]:
    """Write the results of attempts and log them. False for a claim that was lost: of it nothing is written."""
    results = [(*_claim_key(claimed), result.status, result.delay, result.last_error) for claimed, result in settled]
    sent = [
        (*_claim_key(claimed), copy, result.fault, result.started_at, *msgspec.structs.astuple(each))
        for claimed, result in settled
        for copy, each in enumerate(result.sent)
    ]
    rows = await connection.fetch(
        _SETTLE_SQL,
        now,
        *columns_of(results, 6),
        *columns_of(sent, 12),
    )
    kept = {tuple(row) for row in rows}
    return [_claim_key(claimed) in kept for claimed, _ in settled]


def _claim_key(claimed: Claim) -> tuple[UUID, UUID, int]:
    return claimed.tenant_id, claimed.id, claimed.attempt
