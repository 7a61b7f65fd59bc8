"""The table of deliveries, which is also the queue."""

from collections.abc import Sequence
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


def delivery_columns(delivery: NewDelivery) -> tuple[Any, ...]:
    """tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts, created_at, fault,
    fault_rule, fault_seed, and for how many seconds the fault holds it back: for `unnest`.

    It is written in the transaction of what it tells of: the one exists if, and only if, the other does.
    """
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
        str(delivery.fault) if delivery.fault else None,
        delivery.fault_rule,
        delivery.fault_seed,
        delivery.fault.held_seconds if delivery.fault else 0.0,
    )


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
