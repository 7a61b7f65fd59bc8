"""What the next states of many payments at once read and write: one statement before the decisions, one after them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from mockpay.audit.chain import EMPTY, Entry, Head
from mockpay.faults.rules import Counted
from mockpay.faults.store import count_columns
from mockpay.idempotency.model import FINGERPRINT_VERSION, KeyedRequest, Stored
from mockpay.idempotency.store import stored_of
from mockpay.payments.model import Payment
from mockpay.payments.store import payment_of, state_columns
from mockpay.postgres.parameters import columns_of, jsonb
from mockpay.postgres.pool import Connection
from mockpay.webhooks.store import NewDelivery, delivery_columns

# Of one moment: each payment with the end of its audit trail, and what its request's key stands for already. xmin is
# another one after each change of a row: what PostgreSQL has for a version.
_FACTS_SQL: Final = """
SELECT payment.*, head.sequence, head.entry_hash, stored.fingerprint, stored.fingerprint_version,
       stored.answer_status, stored.answer_body, tenant.has_faults, tenant.default_url
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
    SELECT fingerprint, fingerprint_version, answer_status, answer_body FROM idempotency_keys
    WHERE idempotency_keys.tenant_id = asked.tenant_id AND idempotency_keys.key = asked.key LIMIT 1
) AS stored ON true
CROSS JOIN LATERAL (
    SELECT has_faults, webhook_url AS default_url FROM tenants WHERE tenants.id = asked.tenant_id LIMIT 1
) AS tenant
ORDER BY asked.place
"""
_LOCK_SQL: Final = """
SELECT id FROM payments WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE
"""
# Passed over, with all that belongs to it, is a payment that changed since, one of a tenant one of whose fault rules
# was asked by another request since, and one for whose request the key was taken since. Payments are locked, then fault
# rules, then keys are taken, each in one order.
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
same AS (
    SELECT payment.tenant_id, payment.id AS payment_id FROM payments AS payment
    JOIN asked ON asked.tenant_id = payment.tenant_id AND asked.payment_id = payment.id
    WHERE payment.xmin::text = asked.version
    ORDER BY payment.tenant_id, payment.id FOR NO KEY UPDATE OF payment
),
counted AS (
    SELECT * FROM unnest($22::uuid[], $23::uuid[], $24::bigint[], $25::bigint[], $26::bigint[])
        AS counted (tenant_id, id, matched_before, matched, fired)
),
held AS (
    SELECT rule.tenant_id, rule.id
    FROM fault_rules AS rule JOIN counted ON counted.tenant_id = rule.tenant_id AND counted.id = rule.id
    WHERE rule.matched = counted.matched_before
      -- An array: all payments are locked before the first rule, whatever the planner does.
      AND rule.tenant_id = ANY (ARRAY(SELECT tenant_id FROM same))
    ORDER BY rule.tenant_id, rule.id FOR NO KEY UPDATE OF rule
),
moved_on AS (
    SELECT counted.tenant_id FROM counted LEFT JOIN held USING (tenant_id, id) WHERE held.id IS NULL
),
unchanged AS (
    SELECT tenant_id, payment_id FROM same WHERE tenant_id NOT IN (SELECT tenant_id FROM moved_on)
),
asked_rules AS (
    UPDATE fault_rules AS rule SET matched = counted.matched, fired = counted.fired
    FROM counted
    WHERE rule.tenant_id = counted.tenant_id AND rule.id = counted.id
      AND counted.tenant_id IN (SELECT tenant_id FROM unchanged)
),
taken AS (
    INSERT INTO idempotency_keys (tenant_id, key, fingerprint, fingerprint_version, answer_status, answer_body,
                                  created_at)
    SELECT tenant_id, key, fingerprint, $21, 200, answer_body, $1
    FROM asked JOIN unchanged USING (tenant_id, payment_id)
    WHERE key IS NOT NULL ORDER BY tenant_id, key COLLATE "C"
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
                                    max_attempts, created_at, fault, fault_rule, fault_seed, next_attempt_at)
    SELECT tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts, created_at, fault,
           fault_rule, fault_seed,
           -- Not held back for the next event if an earlier one is: it is the next, and sets that one free.
           CASE WHEN starts_with(fault, 'reorder') AND EXISTS (
               SELECT FROM webhook_deliveries AS earlier
               WHERE earlier.tenant_id = queued.tenant_id AND earlier.payment_id = queued.payment_id
                 AND earlier.status = 'pending' AND earlier.attempts = 0 AND starts_with(earlier.fault, 'reorder')
           ) THEN now() ELSE now() + held_seconds * interval '1 second' END
    FROM unnest($27::uuid[], $28::uuid[], $29::uuid[], $30::uuid[], $31::text[], $32::text[], $33::text[],
                $34::text[], $35::integer[], $36::timestamptz[], $37::text[], $38::uuid[], $39::bigint[], $40::float8[])
        AS queued (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts, created_at,
                   fault, fault_rule, fault_seed, held_seconds)
    JOIN moved USING (tenant_id, payment_id)
)
SELECT tenant_id, payment_id FROM moved
"""

Place = tuple[UUID, UUID]
"""A tenant, and a payment of its own."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as it is, the end of its audit trail, and the answer that is stored for the request already.

    `has_faults` and `default_url` are its tenant's.
    """

    payment: Payment | None
    version: str
    head: Head
    stored: Stored | None
    has_faults: bool
    default_url: str | None


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


async def lock(connection: Connection, place: Place) -> None:
    """Keeps the payment as it is until the transaction ends."""
    await connection.execute(_LOCK_SQL, *place)


async def facts(connection: Connection, asked: Sequence[tuple[UUID, UUID, str | None]]) -> list[Known]:
    """Returns what is known of each, of a tenant's payment and a request's key, in their order."""
    return [_known(row) for row in await connection.fetch(_FACTS_SQL, *columns_of(asked, 3))]


async def write(
    connection: Connection, moved: Sequence[Moved], counted: Sequence[Counted], now: datetime
) -> set[Place]:
    """Returns those that were written. For the others the facts no longer hold.

    No payment and no key is among them twice. `counted` is what the fault rules of their tenants count.
    """
    deliveries = [delivery_columns(each.delivery) for each in moved if each.delivery]
    rows = await connection.fetch(
        _WRITE_SQL,
        now,
        *columns_of([_columns(each) for each in moved], 19),
        FINGERPRINT_VERSION,
        *count_columns(counted),
        *columns_of(deliveries, 14),
    )
    return {(row["tenant_id"], row["payment_id"]) for row in rows}


def _known(row: asyncpg.Record) -> Known:
    columns = dict(row)
    version, sequence, entry_hash = (columns.pop(name) for name in ("version", "sequence", "entry_hash"))
    stored = None if row["fingerprint"] is None else stored_of(row)
    for name in ("fingerprint", "fingerprint_version", "answer_status", "answer_body"):
        del columns[name]
    has_faults, default_url = columns.pop("has_faults"), columns.pop("default_url")
    return Known(
        payment=None if version is None else payment_of(columns),
        version=version,
        head=EMPTY if sequence is None else Head(sequence, entry_hash),
        stored=stored,
        has_faults=has_faults,
        default_url=default_url,
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
