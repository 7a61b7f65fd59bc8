"""What the next states of many payments at once read and write: one statement before the decisions, one after them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from mockpay.audit.chain import EMPTY, Entry, Head
from mockpay.idempotency.model import KeyedRequest, Stored
from mockpay.payments.model import Payment
from mockpay.payments.store import payment_of, state_columns
from mockpay.postgres.parameters import columns_of, jsonb
from mockpay.postgres.pool import Connection
from mockpay.webhooks.store import NewDelivery, delivery_columns

# Of one moment: each payment with the end of its audit trail, and what its request's key stands for already. xmin is
# another one after each change of a row: what PostgreSQL has for a version.
_FACTS_SQL: Final = """
SELECT payment.*, head.sequence, head.entry_hash, stored.fingerprint, stored.answer_status, stored.answer_body
FROM unnest($1::uuid[], $2::uuid[], $3::text[]) WITH ORDINALITY AS asked (tenant_id, id, key, place)
LEFT JOIN LATERAL (
    SELECT xmin::text AS version, payments.* FROM payments
    WHERE payments.tenant_id = asked.tenant_id AND payments.id = asked.id LIMIT 1
) AS payment ON true
LEFT JOIN LATERAL (
    SELECT sequence, entry_hash FROM audit_log
    WHERE audit_log.tenant_id = asked.tenant_id AND audit_log.payment_id = asked.id ORDER BY sequence DESC LIMIT 1
) AS head ON true
LEFT JOIN LATERAL (
    SELECT fingerprint, answer_status, answer_body FROM idempotency_keys
    WHERE idempotency_keys.tenant_id = asked.tenant_id AND idempotency_keys.key = asked.key LIMIT 1
) AS stored ON true
ORDER BY asked.place
"""
# Passed over, with all that belongs to it, is a payment that changed since, and one for whose request the key was taken
# since. Payments are locked, then keys are taken, each in one order.
_WRITE_SQL: Final = """
WITH asked AS (
    SELECT * FROM unnest(
        $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[],
        $10::timestamptz[], $11::text[], $12::text[], $13::bytea[], $14::bytea[], $15::uuid[], $16::integer[],
        $17::text[], $18::jsonb[], $19::text[], $20::text[]
    ) AS asked (
        tenant_id, payment_id, version, old_status, status, failure_code, failure_message, refund_minor_units,
        refunded_at, refund_reason, key, fingerprint, answer_body, entry_id, sequence,
        triggered_by, entry_metadata, prev_hash, entry_hash
    )
),
unchanged AS (
    SELECT payment.tenant_id, payment.id AS payment_id FROM payments AS payment
    JOIN asked ON asked.tenant_id = payment.tenant_id AND asked.payment_id = payment.id
    WHERE payment.xmin::text = asked.version
    ORDER BY payment.tenant_id, payment.id FOR NO KEY UPDATE OF payment
),
taken AS (
    INSERT INTO idempotency_keys (tenant_id, key, fingerprint, answer_status, answer_body, created_at)
    SELECT tenant_id, key, fingerprint, 200, answer_body, $1 FROM asked JOIN unchanged USING (tenant_id, payment_id)
    WHERE key IS NOT NULL ORDER BY tenant_id, key
    ON CONFLICT DO NOTHING RETURNING tenant_id, key
),
moved AS (
    UPDATE payments AS payment
    SET status = asked.status, failure_code = asked.failure_code, failure_message = asked.failure_message,
        refund_minor_units = asked.refund_minor_units, refunded_at = asked.refunded_at,
        refund_reason = asked.refund_reason, updated_at = $1
    FROM asked JOIN unchanged USING (tenant_id, payment_id)
    WHERE payment.tenant_id = asked.tenant_id AND payment.id = asked.payment_id
      AND (asked.key IS NULL OR (asked.tenant_id, asked.key) IN (SELECT tenant_id, key FROM taken))
    RETURNING payment.tenant_id, payment.id AS payment_id
),
entry AS (
    INSERT INTO audit_log (tenant_id, payment_id, sequence, id, old_status, new_status, triggered_by, metadata,
                           created_at, prev_hash, entry_hash)
    SELECT tenant_id, payment_id, sequence, entry_id, old_status, status, triggered_by, entry_metadata, $1, prev_hash,
           entry_hash
    FROM asked JOIN moved USING (tenant_id, payment_id)
),
delivery AS (
    INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload,
                                    max_attempts, created_at, next_attempt_at)
    SELECT tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts, created_at, now()
    FROM unnest($21::uuid[], $22::uuid[], $23::uuid[], $24::uuid[], $25::text[], $26::text[], $27::text[],
                $28::text[], $29::integer[], $30::timestamptz[])
        AS queued (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts, created_at)
    JOIN moved USING (tenant_id, payment_id)
)
SELECT tenant_id, payment_id FROM moved
"""

Place = tuple[UUID, UUID]
"""A tenant, and a payment of its own."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as it is, the end of its audit trail, and the answer that is stored for the request already."""

    payment: Payment | None
    version: str
    head: Head
    stored: Stored | None


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """All that is written of one. `answer_body` is what its client gets, now and, with a key, at each repeat."""

    version: str
    payment: Payment
    entry: Entry
    keyed: KeyedRequest | None
    answer_body: bytes
    delivery: NewDelivery | None

    @property
    def place(self) -> Place:
        return self.payment.tenant_id, self.payment.id


async def facts(connection: Connection, asked: Sequence[tuple[UUID, UUID, str | None]]) -> list[Known]:
    """For each, of a tenant's payment and a request's key, in their order."""
    return [_known(row) for row in await connection.fetch(_FACTS_SQL, *columns_of(asked, 3))]


async def write(connection: Connection, moved: Sequence[Moved], now: datetime) -> set[Place]:
    """Those that were written. For the others the facts no longer hold. No payment and no key is among them twice."""
    deliveries = [delivery_columns(each.delivery) for each in moved if each.delivery]
    rows = await connection.fetch(
        _WRITE_SQL,
        now,
        *columns_of([_columns(each) for each in moved], 19),
        *columns_of(deliveries, 10),
    )
    return {(row["tenant_id"], row["payment_id"]) for row in rows}


def _known(row: asyncpg.Record) -> Known:
    columns = dict(row)
    version, sequence, entry_hash = (columns.pop(name) for name in ("version", "sequence", "entry_hash"))
    answered = [columns.pop(name) for name in ("fingerprint", "answer_status", "answer_body")]
    return Known(
        payment=None if version is None else payment_of(columns),
        version=version,
        head=EMPTY if sequence is None else Head(sequence, entry_hash),
        stored=None if answered[0] is None else Stored(*answered),
    )


def _columns(moved: Moved) -> tuple[Any, ...]:
    payment, entry, keyed = moved.payment, moved.entry, moved.keyed
    return (
        payment.tenant_id,
        payment.id,
        moved.version,
        entry.content.old_status,
        *state_columns(payment),
        keyed.key if keyed else None,
        keyed.fingerprint if keyed else None,
        moved.answer_body if keyed else None,
        entry.content.id,
        entry.sequence,
        entry.content.triggered_by,
        jsonb(entry.content.metadata),
        entry.prev_hash,
        entry.entry_hash,
    )
