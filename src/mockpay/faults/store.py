"""The table of fault rules."""

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from mockpay.events import Event
from mockpay.faults.rules import Counted, Operation, Rule, Target
from mockpay.postgres.parameters import columns_of
from mockpay.postgres.pool import Connection

# The order in which they are asked: oldest first.
_LIST_SQL: Final = "SELECT * FROM fault_rules WHERE tenant_id = $1 ORDER BY created_at, id"
_ABOUT_SQL: Final = """
SELECT * FROM fault_rules
WHERE tenant_id = ANY ($1::uuid[]) AND target = $2
  AND (coalesce(operation, event) IS NULL OR coalesce(operation, event) = ANY ($3::text[]))
ORDER BY tenant_id, created_at, id
"""
# Whoever makes rules, or ends them, holds the tenant's row. This waits for them, in a statement of its own, so that the
# next ones see what they did. Locked in one order everywhere, so that two of these can't wait for each other.
_LOCK_TENANTS_SQL: Final = "SELECT id FROM tenants WHERE id = ANY ($1::uuid[]) ORDER BY id FOR SHARE"
_LOCK_SQL: Final = """
SELECT id FROM fault_rules WHERE tenant_id = ANY ($1::uuid[]) ORDER BY tenant_id, id FOR NO KEY UPDATE
"""
# Of a tenant all counts are written, or none: where one of its rules was asked by somebody else since, or is gone, what
# was decided by them no longer holds.
_COUNT_SQL: Final = """
WITH counted AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS counted (tenant_id, id, matched_before, matched, fired)
),
held AS (
    SELECT rule.tenant_id, rule.id
    FROM fault_rules AS rule JOIN counted ON counted.tenant_id = rule.tenant_id AND counted.id = rule.id
    WHERE rule.matched = counted.matched_before
    ORDER BY rule.tenant_id, rule.id FOR NO KEY UPDATE OF rule
),
whole AS (
    SELECT counted.tenant_id FROM counted LEFT JOIN held USING (tenant_id, id)
    GROUP BY counted.tenant_id HAVING count(*) = count(held.id)
),
written AS (
    UPDATE fault_rules AS rule SET matched = counted.matched, fired = counted.fired
    FROM counted JOIN whole USING (tenant_id)
    WHERE rule.tenant_id = counted.tenant_id AND rule.id = counted.id
)
SELECT tenant_id FROM whole
"""
_INSERT_SQL: Final = """
INSERT INTO fault_rules (tenant_id, id, target, operation, event, fault, times, every, probability, seed, created_at)
SELECT $1, made.* FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::integer[], $8::integer[],
                              $9::numeric[], $10::bigint[], $11::timestamptz[]) AS made
"""
_DELETE_SQL: Final = "DELETE FROM fault_rules WHERE tenant_id = $1 AND id = $2 RETURNING id"
_DELETE_ALL_SQL: Final = """
DELETE FROM fault_rules AS rule
USING (SELECT id FROM fault_rules WHERE tenant_id = $1 ORDER BY id FOR UPDATE) AS locked
WHERE rule.tenant_id = $1 AND rule.id = locked.id
"""
_FLAG_TENANT_SQL: Final = """
UPDATE tenants SET has_faults = EXISTS (SELECT FROM fault_rules WHERE tenant_id = $1) WHERE id = $1
"""


async def of_tenant(connection: Connection, tenant_id: UUID) -> list[Rule]:
    """Returns a tenant's rules in the order in which they are asked: oldest first."""
    return [_rule_of(row) for row in await connection.fetch(_LIST_SQL, tenant_id)]


async def about(
    connection: Connection, tenant_ids: Iterable[UUID], target: Target, things: Iterable[Operation | Event]
) -> dict[UUID, list[Rule]]:
    """Returns, by tenant, the rules that requests or webhooks of these kinds have to ask, in their order."""
    found: dict[UUID, list[Rule]] = {tenant_id: [] for tenant_id in tenant_ids}
    for row in await connection.fetch(_ABOUT_SQL, list(found), target.value, sorted({thing.value for thing in things})):
        found[row["tenant_id"]].append(_rule_of(row))
    return found


async def lock(connection: Connection, tenant_ids: Iterable[UUID]) -> None:
    """Keeps the rules of these tenants as they are until the transaction ends: none is made, asked or ended."""
    ids = list(tenant_ids)
    await connection.execute(_LOCK_TENANTS_SQL, ids)
    await connection.execute(_LOCK_SQL, ids)


async def count(connection: Connection, counted: Sequence[Counted]) -> set[UUID]:
    """Writes what the rules counted, and returns the tenants of which that still holds."""
    rows = await connection.fetch(_COUNT_SQL, *count_columns(counted))
    return {row["tenant_id"] for row in rows}


def count_columns(counted: Sequence[Counted]) -> list[list[Any]]:
    """tenant_id, id, matched before, matched now, fired now: for `unnest`."""
    rows = [(each.tenant_id, each.rule_id, each.matched_before, each.matched, each.fired) for each in counted]
    return columns_of(rows, 5)


async def insert(connection: Connection, tenant_id: UUID, rules: Sequence[Rule]) -> None:
    """The caller holds the tenant's lock."""
    rows = [
        (
            rule.id,
            rule.target.value,
            rule.operation.value if rule.operation else None,
            rule.event.value if rule.event else None,
            rule.fault,
            rule.times,
            rule.every,
            rule.probability,
            rule.seed,
            rule.created_at,
        )
        for rule in rules
    ]
    await connection.execute(_INSERT_SQL, tenant_id, *columns_of(rows, 10))
    await connection.execute(_FLAG_TENANT_SQL, tenant_id)


async def delete(connection: Connection, tenant_id: UUID, rule_id: UUID) -> bool:
    """Returns False if there is none. The caller holds the tenant's lock."""
    found = await connection.fetchval(_DELETE_SQL, tenant_id, rule_id)
    await connection.execute(_FLAG_TENANT_SQL, tenant_id)
    return found is not None


async def delete_all(connection: Connection, tenant_id: UUID) -> None:
    """Ends all rules of the tenant. The caller holds the tenant's lock."""
    await connection.execute(_DELETE_ALL_SQL, tenant_id)
    await connection.execute(_FLAG_TENANT_SQL, tenant_id)


def _rule_of(row: asyncpg.Record) -> Rule:
    # Spelled out: a batch may read a hundred of each of its tenants.
    operation, event = row["operation"], row["event"]
    return Rule(
        id=row["id"],
        target=Target(row["target"]),
        operation=Operation(operation) if operation else None,
        event=Event(event) if event else None,
        fault=row["fault"],
        times=row["times"],
        every=row["every"],
        probability=row["probability"],
        seed=row["seed"],
        matched=row["matched"],
        fired=row["fired"],
        created_at=row["created_at"],
    )
