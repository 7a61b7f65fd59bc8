"""What the creation of many payments at once reads and writes: one statement before the decisions, one after them.

The second one writes into the tables of four packages, because one statement is what makes a batch fast. It stands here
since payments are what they are about.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from mockpay.audit.chain import GENESIS, Entry
from mockpay.faults.rules import Counted
from mockpay.faults.store import count_columns
from mockpay.idempotency.model import FINGERPRINT_VERSION, KeyedRequest, Stored
from mockpay.idempotency.store import stored_of
from mockpay.payments.fraud import Rule, RuleType
from mockpay.payments.model import Payment
from mockpay.payments.velocity import Count, Known, Memory
from mockpay.postgres.parameters import columns_of, jsonb
from mockpay.postgres.pool import Connection
from mockpay.webhooks.store import NewDelivery, delivery_columns

# In one order, so that two of these can't wait for each other.
_LOCK_SQL: Final = """
SELECT tenant_id FROM creation_counters WHERE tenant_id = ANY ($1::uuid[]) ORDER BY tenant_id FOR NO KEY UPDATE
"""
# Of one moment. Three kinds of rows: the rules that hold for one of the tenants, and have a name; the tenants, once for
# each velocity rule that counts their recent payments; and the answers that are stored, which have a key.
#
# A count goes no further than the threshold, and is not made where what is known of an earlier one decides already, of
# the same version of the rule. There is no upper end of the window: should the clock have jumped back, payments "from
# the future" count.
_FACTS_SQL: Final = """
WITH asked AS MATERIALIZED (
    SELECT tenant.id, counter.creations, tenant.has_faults, tenant.webhook_url
    FROM unnest($1::uuid[]) AS asked (id)
    CROSS JOIN LATERAL (
        SELECT id, has_faults, webhook_url FROM tenants WHERE tenants.id = asked.id LIMIT 1
    ) AS tenant
    CROSS JOIN LATERAL (
        SELECT creations FROM creation_counters WHERE creation_counters.tenant_id = asked.id LIMIT 1
    ) AS counter
),
rule AS MATERIALIZED (
    SELECT xmin::text AS version, * FROM fraud_rules WHERE tenant_id IS NULL AND is_active
    UNION ALL
    SELECT own.* FROM asked CROSS JOIN LATERAL (
        SELECT xmin::text AS version, * FROM fraud_rules WHERE tenant_id = asked.id AND is_active
    ) AS own
),
-- Apart for shared and own ones: of a condition with OR each tenant would be compared with each rule of all of them.
counting AS (
    SELECT asked.id AS asked_id, rule.* FROM asked CROSS JOIN rule
    WHERE rule.rule_type = 'velocity' AND rule.tenant_id IS NULL
    UNION ALL
    SELECT asked.id AS asked_id, rule.* FROM asked JOIN rule ON rule.tenant_id = asked.id
    WHERE rule.rule_type = 'velocity'
),
known AS (
    SELECT * FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::bigint[], $7::timestamptz[])
        AS known (tenant_id, rule_id, version, creations_max, too_many_until)
)
SELECT rule.tenant_id, rule.id AS rule_id, rule.version, rule.name, rule.rule_type, rule.threshold, rule.window_secs,
       rule.currency, rule.created_at AS rule_created_at,
       NULL::bigint AS creations, NULL::boolean AS has_faults, NULL AS webhook_url, NULL::boolean AS is_counted,
       NULL::bigint AS payments, NULL::timestamptz AS settled_since, NULL AS key, NULL::bytea AS fingerprint,
       NULL::smallint AS fingerprint_version, NULL::smallint AS answer_status, NULL::bytea AS answer_body
FROM rule
UNION ALL
SELECT asked.id, rule.id, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       asked.creations, asked.has_faults, asked.webhook_url, open.is_counted, recent.payments, recent.settled_since,
       NULL, NULL, NULL, NULL, NULL
FROM asked
LEFT JOIN counting AS rule ON rule.asked_id = asked.id
LEFT JOIN known ON known.tenant_id = asked.id AND known.rule_id = rule.id AND known.version = rule.version
CROSS JOIN LATERAL (
    SELECT rule.id IS NOT NULL
           AND coalesce(asked.creations > known.creations_max, true) AND coalesce($2 >= known.too_many_until, true)
) AS open (is_counted)
CROSS JOIN LATERAL (
    SELECT count(*) AS payments,
           CASE WHEN count(*) >= rule.threshold AND NOT bool_or(status = 'pending') THEN min(created_at) END
               AS settled_since
    FROM (
        SELECT status, created_at FROM payments
        WHERE open.is_counted
          AND payments.tenant_id = asked.id
          AND payments.created_at > $2::timestamptz - rule.window_secs * interval '1 second'
          AND payments.status <> 'failed' AND (rule.currency IS NULL OR payments.currency = rule.currency)
        ORDER BY payments.created_at DESC
        LIMIT rule.threshold::bigint
    ) AS newest
) AS recent
UNION ALL
SELECT stored.tenant_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       stored.key, stored.fingerprint, stored.fingerprint_version, stored.answer_status, stored.answer_body
FROM unnest($8::uuid[], $9::text[]) AS wanted (tenant_id, key)
CROSS JOIN LATERAL (
    SELECT * FROM idempotency_keys AS held
    WHERE held.tenant_id = wanted.tenant_id AND held.key = wanted.key LIMIT 1
) AS stored
ORDER BY rule_created_at, rule_id
"""
_NOW_SQL: Final = "SELECT now()"
# Passed over, with all that belongs to it, is what the facts no longer hold for: a tenant of which more payments were
# created since than the verdicts have room for; one of whose fault rules was asked by another request since; a key that
# another request took since. Where that one is still under way, this waits for its end. Counters are locked, then fault
# rules, then keys are taken, each in one order.
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
    JOIN unnest($2::uuid[], $3::bigint[]) AS seen (tenant_id, creations_max) ON seen.tenant_id = counter.tenant_id
    WHERE counter.creations <= seen.creations_max
    ORDER BY counter.tenant_id FOR NO KEY UPDATE OF counter
),
counted AS (
    SELECT * FROM unnest($28::uuid[], $29::uuid[], $30::bigint[], $31::bigint[], $32::bigint[])
        AS counted (tenant_id, id, matched_before, matched, fired)
),
held AS (
    SELECT rule.tenant_id, rule.id
    FROM fault_rules AS rule JOIN counted ON counted.tenant_id = rule.tenant_id AND counted.id = rule.id
    WHERE rule.matched = counted.matched_before
      -- An array: all counters are locked before the first rule, whatever the planner does.
      AND rule.tenant_id = ANY (ARRAY(SELECT tenant_id FROM unchanged))
    ORDER BY rule.tenant_id, rule.id FOR NO KEY UPDATE OF rule
),
valid AS (
    SELECT tenant_id FROM unchanged
    EXCEPT
    SELECT counted.tenant_id FROM counted LEFT JOIN held USING (tenant_id, id) WHERE held.id IS NULL
),
asked_rules AS (
    UPDATE fault_rules AS rule SET matched = counted.matched, fired = counted.fired
    FROM counted JOIN valid USING (tenant_id)
    WHERE rule.tenant_id = counted.tenant_id AND rule.id = counted.id
),
taken AS (
    INSERT INTO idempotency_keys (tenant_id, key, fingerprint, fingerprint_version, answer_status, answer_body,
                                  created_at)
    SELECT tenant_id, key, fingerprint, $27, 201, answer_body, $1 FROM asked
    WHERE tenant_id IN (SELECT tenant_id FROM valid) ORDER BY tenant_id, key COLLATE "C"
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
                                    max_attempts, created_at, fault, fault_rule, fault_seed, next_attempt_at)
    SELECT tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts, created_at, fault,
           fault_rule, fault_seed, now() + held_seconds * interval '1 second'
    FROM unnest($33::text[], $34::uuid[], $35::uuid[], $36::uuid[], $37::uuid[], $38::text[], $39::text[], $40::text[],
                $41::text[], $42::integer[], $43::timestamptz[], $44::text[], $45::uuid[], $46::bigint[],
                $47::float8[])
        AS queued (key, tenant_id, id, payment_id, event_id, event, url, receiver_host, payload, max_attempts,
                   created_at, fault, fault_rule, fault_seed, held_seconds)
    JOIN taken USING (tenant_id, key)
)
SELECT tenant_id, key FROM taken
"""


Key = tuple[UUID, str]
"""A tenant, and an idempotency key of its own."""


class Of(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what is decided by, of one tenant. `rules` are in the order in which they are applied.

    `recent` holds, by velocity rule, how many payments were made in its window. `creations` tells later whether that
    still is so.
    """

    creations: int
    has_faults: bool
    webhook_url: str | None
    rules: list[Rule] = []
    recent: dict[UUID, int] = {}


class Facts(msgspec.Struct, frozen=True):
    """Holds what is decided by, of one moment: by tenant, and by the keys that stand for an answer already."""

    of: dict[UUID, Of]
    stored: dict[Key, Stored]


class NewPayment(msgspec.Struct, frozen=True, kw_only=True):
    """All that is written of one. `answer_body` is what its client gets, now and at each repeat."""

    payment: Payment
    entry: Entry
    keyed: KeyedRequest
    answer_body: bytes
    delivery: NewDelivery | None


async def lock(connection: Connection, tenant_ids: Sequence[UUID]) -> None:
    """Keeps what is counted of these tenants as it is until the transaction ends."""
    await connection.execute(_LOCK_SQL, tenant_ids)


async def facts(
    connection: Connection, batches: Mapping[UUID, int], keys: Sequence[Key], now: datetime, memory: Memory
) -> Facts:
    """Reads what is decided by. `batches` holds, by tenant, how many payments are to be decided.

    What had to be counted is kept in `memory`.
    """
    known = memory.known(batches, now)
    rows = await connection.fetch(
        _FACTS_SQL,
        list(batches),
        now,
        *columns_of(
            [(each.tenant_id, each.count.rule_id, each.count.version, each.creations_max, each.too_many_until)
             for each in known], 5,
        ),
        *columns_of(keys, 2),
    )  # fmt: skip
    stored = {(row["tenant_id"], row["key"]): stored_of(row) for row in rows if row["key"] is not None}
    return Facts(_of_tenants(rows, known, now, memory), stored)


def _of_tenants(rows: Sequence[Any], known: Sequence[Known], now: datetime, memory: Memory) -> dict[UUID, Of]:
    described = {row["rule_id"]: row for row in rows if row["name"] is not None}
    rules = {rule_id: _rule_of(row) for rule_id, row in described.items()}
    shared = [rule for rule_id, rule in rules.items() if described[rule_id]["tenant_id"] is None]
    own = _own_rules(described, rules)
    earlier = {(each.tenant_id, each.count.rule_id): each for each in known}
    found: dict[UUID, Of] = {}
    counts: dict[UUID, list[Count]] = {}
    for row in rows:
        if row["creations"] is None:
            continue
        tenant_id, creations, rule_id = row["tenant_id"], row["creations"], row["rule_id"]
        of = found.get(tenant_id)
        if of is None:
            of = found[tenant_id] = Of(
                creations=creations,
                has_faults=row["has_faults"],
                webhook_url=row["webhook_url"],
                rules=_in_order(shared, own[tenant_id], described) if tenant_id in own else shared,
            )
        if row["is_counted"]:
            of.recent[rule_id] = row["payments"]
            counts.setdefault(tenant_id, []).append(_count_of(row, rules[rule_id], described[rule_id]["version"], now))
        elif rule_id is not None:
            of.recent[rule_id] = earlier[tenant_id, rule_id].recent(creations)
    for tenant_id, counted in counts.items():
        memory.keep(tenant_id, counted, found[tenant_id].recent)
    return found


def _own_rules(described: Mapping[UUID, Any], rules: Mapping[UUID, Rule]) -> dict[UUID, list[Rule]]:
    own: dict[UUID, list[Rule]] = {}
    for rule_id, row in described.items():
        if row["tenant_id"] is not None:
            own.setdefault(row["tenant_id"], []).append(rules[rule_id])
    return own


def _in_order(shared: Sequence[Rule], own: Sequence[Rule], described: Mapping[UUID, Any]) -> list[Rule]:
    """Oldest first, as each of them is already."""
    return list(heapq.merge(shared, own, key=lambda rule: (described[rule.id]["rule_created_at"], rule.id)))


def _count_of(row: Any, rule: Rule, version: str, now: datetime) -> Count:
    assert rule.window_secs is not None, "a velocity rule has a window"
    return Count(
        rule_id=rule.id,
        version=version,
        threshold=math.ceil(rule.threshold),
        window_secs=rule.window_secs,
        at=now,
        creations=row["creations"],
        payments=row["payments"],
        settled_since=row["settled_since"],
    )


async def database_now(connection: Connection) -> datetime:
    """Returns the time by the clock by which an outcome becomes due."""
    now: datetime = await connection.fetchval(_NOW_SQL)
    return now


async def write(
    connection: Connection,
    payments: Sequence[NewPayment],
    creations_max: Mapping[UUID, int],
    counted: Sequence[Counted],
    now: datetime,
) -> set[Key]:
    """Returns the keys that were written. For the others the facts no longer hold.

    All have the same `created_at`. The caller gives them in the order of their keys. `creations_max` says, for each
    tenant, up to which value of its counter the verdicts are right, and `counted` what its fault rules count.
    """
    deliveries = [(each.keyed.key, *delivery_columns(each.delivery)) for each in payments if each.delivery]
    rows = await connection.fetch(
        _WRITE_SQL,
        now,
        list(creations_max),
        list(creations_max.values()),
        *columns_of([_payment_columns(each) for each in payments], 22),
        GENESIS,
        FINGERPRINT_VERSION,
        *count_columns(counted),
        *columns_of(deliveries, 15),
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
