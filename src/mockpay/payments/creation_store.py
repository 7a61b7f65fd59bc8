"""What the creation of many payments at once reads and writes: one statement before the decisions, one after them.

The second one writes into the tables of four packages, because one statement is what makes a batch fast. It stands here
since payments are what they are about.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from mockpay.audit.chain import GENESIS, Entry
from mockpay.idempotency.model import KeyedRequest, Stored
from mockpay.idempotency.store import stored_of
from mockpay.payments.fraud import Rule, RuleType
from mockpay.payments.model import Payment
from mockpay.postgres.parameters import columns_of, jsonb
from mockpay.postgres.pool import Connection
from mockpay.webhooks.store import NewDelivery, delivery_columns

# In one order, so that two of these can't wait for each other.
_LOCK_SQL: Final = """
SELECT tenant_id FROM creation_counters WHERE tenant_id = ANY ($1::uuid[]) ORDER BY tenant_id FOR NO KEY UPDATE
"""
# Of one moment. Two kinds of rows: the rules that hold for a tenant, with its recent payments where a rule counts them,
# and the answers that are stored.
#
# The count goes no further than the threshold. There is no upper end of the window: should the clock have jumped back,
# payments "from the future" count.
_FACTS_SQL: Final = """
SELECT tenant.id AS tenant_id, rule.id AS rule_id, rule.created_at AS rule_created_at, rule.name, rule.rule_type,
       rule.threshold, rule.window_secs, rule.currency, recent.payments, counter.creations,
       NULL AS key, NULL AS fingerprint, NULL AS answer_status, NULL AS answer_body
FROM fraud_rules AS rule
JOIN unnest($1::uuid[]) AS tenant (id) ON rule.tenant_id IS NULL OR rule.tenant_id = tenant.id
LEFT JOIN LATERAL (
    SELECT creations FROM creation_counters WHERE creation_counters.tenant_id = tenant.id LIMIT 1
) AS counter ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS payments FROM (
        SELECT FROM payments
        WHERE rule.rule_type = 'velocity'
          AND payments.tenant_id = tenant.id
          AND payments.created_at > $2::timestamptz - rule.window_secs * interval '1 second'
          AND payments.status <> 'failed' AND (rule.currency IS NULL OR payments.currency = rule.currency)
        LIMIT rule.threshold::bigint
    ) AS newest
) AS recent
WHERE rule.is_active
UNION ALL
SELECT stored.tenant_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       stored.key, stored.fingerprint, stored.answer_status, stored.answer_body
FROM unnest($3::uuid[], $4::text[]) AS asked (tenant_id, key)
CROSS JOIN LATERAL (
    SELECT * FROM idempotency_keys AS held
    WHERE held.tenant_id = asked.tenant_id AND held.key = asked.key LIMIT 1
) AS stored
ORDER BY rule_created_at, rule_id
"""
_NOW_SQL: Final = "SELECT now()"
# Passed over, with all that belongs to it, is what the facts no longer hold for: a tenant that was counted, and of
# which payments were created since; a key that another request took since. Where that one is still under way, this
# waits for its end. The counters are locked, and the keys taken, in one order.
_WRITE_SQL: Final = """
WITH asked AS (
    SELECT * FROM unnest(
        $4::uuid[], $5::text[], $6::bytea[], $7::bytea[], $8::uuid[], $9::bigint[], $10::text[], $11::text[],
        $12::text[], $13::text[], $14::jsonb[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[],
        $20::bigint[], $21::timestamptz[], $22::uuid[], $23::text[], $24::jsonb[], $25::text[]
    ) AS asked (
        tenant_id, key, fingerprint, answer_body, payment_id, amount_minor_units, currency, status, webhook_url,
        description, metadata, flag_reason, flag_rule, payment_method, outcome_status, outcome_failure_code,
        outcome_seed, outcome_due_at, entry_id, triggered_by, entry_metadata, entry_hash
    )
),
unchanged AS (
    SELECT counter.tenant_id FROM creation_counters AS counter
    JOIN unnest($2::uuid[], $3::bigint[]) AS seen (tenant_id, creations)
        ON seen.tenant_id = counter.tenant_id AND seen.creations = counter.creations
    ORDER BY counter.tenant_id FOR NO KEY UPDATE OF counter
),
counted AS (
    UPDATE creation_counters AS counter SET creations = counter.creations + 1 FROM unchanged
    WHERE counter.tenant_id = unchanged.tenant_id
    RETURNING counter.tenant_id
),
taken AS (
    INSERT INTO idempotency_keys (tenant_id, key, fingerprint, answer_status, answer_body, created_at)
    SELECT tenant_id, key, fingerprint, 201, answer_body, $1 FROM asked
    WHERE tenant_id <> ALL ($2::uuid[]) OR tenant_id IN (SELECT tenant_id FROM counted)
    ON CONFLICT DO NOTHING RETURNING tenant_id, key
),
payment AS (
    INSERT INTO payments (tenant_id, id, amount_minor_units, currency, status, webhook_url, description, metadata,
                          idempotency_key, flag_reason, flag_rule, created_at, updated_at, payment_method,
                          outcome_status, outcome_failure_code, outcome_seed, outcome_due_at)
    SELECT tenant_id, payment_id, amount_minor_units, currency, status, webhook_url, description, metadata,
           key, flag_reason, flag_rule, $1, $1, payment_method,
           outcome_status, outcome_failure_code, outcome_seed, outcome_due_at
    FROM asked JOIN taken USING (tenant_id, key)
),
entry AS (
    INSERT INTO audit_log (tenant_id, payment_id, sequence, id, old_status, new_status, triggered_by, metadata,
                           created_at, prev_hash, entry_hash)
    SELECT tenant_id, payment_id, 1, entry_id, NULL, status, triggered_by, entry_metadata, $1, $26, entry_hash
    FROM asked JOIN taken USING (tenant_id, key)
),
delivery AS (
    INSERT INTO webhook_deliveries (tenant_id, id, payment_id, event_id, event, url, receiver_host, payload,
                                    max_attempts, created_at, next_attempt_at)
    SELECT tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts, created_at, now()
    FROM unnest($27::text[], $28::uuid[], $29::uuid[], $30::uuid[], $31::uuid[], $32::text[], $33::text[], $34::text[],
                $35::text[], $36::integer[], $37::timestamptz[])
        AS queued (key, tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts,
                   created_at)
    JOIN taken USING (tenant_id, key)
)
SELECT tenant_id, key FROM taken
"""

Key = tuple[UUID, str]
"""A tenant, and an idempotency key of its own."""


class Facts(msgspec.Struct, frozen=True):
    """What is decided by, of one moment.

    `rules` of a tenant are in the order in which they are applied. `recent` holds, by tenant and velocity rule, how
    many payments were made in its window, and `counters` what tells later whether it still is so.
    """

    rules: dict[UUID, list[Rule]]
    recent: dict[UUID, dict[UUID, int]]
    counters: dict[UUID, int]
    stored: dict[Key, Stored]


class NewPayment(msgspec.Struct, frozen=True, kw_only=True):
    """All that is written of one. `answer_body` is what its client gets, now and at each repeat."""

    payment: Payment
    entry: Entry
    keyed: KeyedRequest
    answer_body: bytes
    delivery: NewDelivery | None


async def lock(connection: Connection, tenant_ids: Sequence[UUID]) -> None:
    """What is counted of these tenants from now on stays as it is until the transaction ends."""
    await connection.execute(_LOCK_SQL, tenant_ids)


async def facts(connection: Connection, tenant_ids: Sequence[UUID], keys: Sequence[Key], now: datetime) -> Facts:
    found = Facts({tenant_id: [] for tenant_id in tenant_ids}, {tenant_id: {} for tenant_id in tenant_ids}, {}, {})
    for row in await connection.fetch(
        _FACTS_SQL, tenant_ids, now, [tenant_id for tenant_id, _ in keys], [key for _, key in keys]
    ):
        tenant_id: UUID = row["tenant_id"]
        if row["key"] is not None:
            found.stored[tenant_id, row["key"]] = stored_of(row)
            continue
        rule = _rule_of(row)
        found.rules[tenant_id].append(rule)
        if rule.rule_type is RuleType.VELOCITY:
            found.recent[tenant_id][rule.id] = row["payments"]
            found.counters[tenant_id] = row["creations"]
    return found


async def database_now(connection: Connection) -> datetime:
    """By the clock by which an outcome becomes due."""
    now: datetime = await connection.fetchval(_NOW_SQL)
    return now


async def write(
    connection: Connection, payments: Sequence[NewPayment], counters: dict[UUID, int], now: datetime
) -> set[Key]:
    """The keys that were written. For the others the facts no longer hold.

    All have the same `created_at`. The caller gives them in the order of their keys.
    """
    deliveries = [(each.keyed.key, *delivery_columns(each.delivery)) for each in payments if each.delivery]
    rows = await connection.fetch(
        _WRITE_SQL,
        now,
        list(counters),
        list(counters.values()),
        *columns_of([_payment_columns(each) for each in payments], 22),
        GENESIS,
        *columns_of(deliveries, 11),
    )
    return {(row["tenant_id"], row["key"]) for row in rows}


def _payment_columns(new: NewPayment) -> tuple[Any, ...]:
    payment, outcome = new.payment, new.payment.outcome
    return (
        payment.tenant_id,
        new.keyed.key,
        new.keyed.fingerprint,
        new.answer_body,
        payment.id,
        payment.money.minor_units,
        payment.money.currency,
        payment.status.value,
        payment.webhook_url,
        payment.description,
        jsonb(payment.metadata),
        payment.flag_reason,
        payment.flag_rule,
        payment.payment_method,
        outcome.status.value if outcome else None,
        outcome.failure_code.value if outcome and outcome.failure_code else None,
        outcome.seed if outcome else None,
        outcome.due_at if outcome else None,
        new.entry.content.id,
        new.entry.content.triggered_by,
        jsonb(new.entry.content.metadata),
        new.entry.entry_hash,
    )


def _rule_of(row: Any) -> Rule:
    return Rule(
        id=row["rule_id"],
        name=row["name"],
        rule_type=RuleType(row["rule_type"]),
        threshold=row["threshold"],
        window_secs=row["window_secs"],
        currency=row["currency"],
    )
