"""The table of fault rules."""

from typing import Any, Final
from uuid import UUID

import asyncpg

from mockpay.events import Event
from mockpay.faults.rules import Operation, Rule, Target
from mockpay.postgres.pool import Connection

_LIST_SQL: Final = "SELECT * FROM fault_rules WHERE tenant_id = $1 ORDER BY created_at, id"
# In one order, so that two requests of a tenant wait for each other and never deadlock: counts are exact.
_ASK_SQL: Final = """
SELECT * FROM fault_rules WHERE tenant_id = $1 AND target = $2 AND coalesce(operation, event, $3) = $3
ORDER BY created_at, id FOR NO KEY UPDATE
"""
_COUNT_SQL: Final = "UPDATE fault_rules SET matched = $3, fired = $4 WHERE tenant_id = $1 AND id = $2"
_INSERT_SQL: Final = """
INSERT INTO fault_rules (tenant_id, id, target, operation, event, fault, times, every, probability, seed, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
_DELETE_SQL: Final = "DELETE FROM fault_rules WHERE tenant_id = $1 AND id = $2 RETURNING id"
# Locked in the order in which they are asked, or this and a request could wait for each other.
_DELETE_ALL_SQL: Final = """
DELETE FROM fault_rules AS rule
USING (SELECT id FROM fault_rules WHERE tenant_id = $1 ORDER BY created_at, id FOR UPDATE) AS locked
WHERE rule.tenant_id = $1 AND rule.id = locked.id
"""
_FLAG_TENANT_SQL: Final = """
UPDATE tenants SET has_faults = EXISTS (SELECT FROM fault_rules WHERE tenant_id = $1) WHERE id = $1
"""


async def of_tenant(connection: Connection, tenant_id: UUID) -> list[Rule]:
    """In the order in which they are asked: oldest first."""
    return [_rule_of(row) for row in await connection.fetch(_LIST_SQL, tenant_id)]


async def lock_for(connection: Connection, tenant_id: UUID, about: Operation | Event) -> list[Rule]:
    """Those that a request, or the webhook of an event, has to ask, in their order."""
    target = Target.REQUEST if isinstance(about, Operation) else Target.WEBHOOK
    return [_rule_of(row) for row in await connection.fetch(_ASK_SQL, tenant_id, target.value, about.value)]


async def count(connection: Connection, tenant_id: UUID, rule: Rule) -> None:
    """The caller holds the row's lock."""
    await connection.execute(_COUNT_SQL, tenant_id, rule.id, rule.matched, rule.fired)


async def insert(connection: Connection, tenant_id: UUID, rule: Rule) -> None:
    """The caller holds the tenant's lock."""
    await connection.execute(
        _INSERT_SQL,
        tenant_id,
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
    await connection.execute(_FLAG_TENANT_SQL, tenant_id)


async def delete(connection: Connection, tenant_id: UUID, rule_id: UUID) -> bool:
    """False if there is none. The caller holds the tenant's lock."""
    found = await connection.fetchval(_DELETE_SQL, tenant_id, rule_id)
    await connection.execute(_FLAG_TENANT_SQL, tenant_id)
    return found is not None


async def delete_all(connection: Connection, tenant_id: UUID) -> None:
    """The caller holds the tenant's lock."""
    await connection.execute(_DELETE_ALL_SQL, tenant_id)
    await connection.execute(_FLAG_TENANT_SQL, tenant_id)


def _rule_of(row: asyncpg.Record) -> Rule:
    columns: dict[str, Any] = dict(row)
    del columns["tenant_id"]
    operation, event = columns["operation"], columns["event"]
    return Rule(
        **columns
        | {
            "target": Target(columns["target"]),
            "operation": Operation(operation) if operation else None,
            "event": Event(event) if event else None,
        }
    )
