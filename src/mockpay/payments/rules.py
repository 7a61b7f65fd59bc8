"""The table of fraud rules, as the administrator sees it. `payments.creation_store` reads those that are active."""

from typing import Final
from uuid import UUID

import asyncpg

from mockpay.cursor import Cursor
from mockpay.payments.fraud import RuleType, StoredRule
from mockpay.postgres.pool import Connection

# In the order in which they are applied.
_PAGE_SQL: Final = """
SELECT * FROM fraud_rules
WHERE $1::timestamptz IS NULL OR (created_at, id) > ($1, $2::uuid)
ORDER BY created_at, id LIMIT $3
"""
_COUNT_SQL: Final = "SELECT count(*) FROM fraud_rules"
_INSERT_SQL: Final = """
INSERT INTO fraud_rules
    (id, name, rule_type, threshold, window_secs, currency, tenant_id, action, is_active, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_BY_ID_LOCKED_SQL: Final = "SELECT * FROM fraud_rules WHERE id = $1 FOR UPDATE"
_UPDATE_SQL: Final = """
UPDATE fraud_rules SET name = $2, threshold = $3, window_secs = $4, is_active = $5 WHERE id = $1
"""
_DELETE_SQL: Final = "DELETE FROM fraud_rules WHERE id = $1 RETURNING id"


async def page(connection: Connection, after: Cursor | None, limit: int) -> list[StoredRule]:
    """In the order in which they are applied: oldest first."""
    created_at, id_ = (after.created_at, after.id) if after else (None, None)
    return [_rule_of(row) for row in await connection.fetch(_PAGE_SQL, created_at, id_, limit)]


async def count(connection: Connection) -> int:
    found: int = await connection.fetchval(_COUNT_SQL)
    return found


async def insert(connection: Connection, rule: StoredRule) -> None:
    await connection.execute(
        _INSERT_SQL,
        rule.id,
        rule.name,
        rule.rule_type.value,
        rule.threshold,
        rule.window_secs,
        rule.currency,
        rule.tenant_id,
        rule.action,
        rule.is_active,
        rule.created_at,
    )


async def by_id_locked(connection: Connection, rule_id: UUID) -> StoredRule | None:
    row = await connection.fetchrow(_BY_ID_LOCKED_SQL, rule_id)
    return None if row is None else _rule_of(row)


async def update(connection: Connection, rule: StoredRule) -> None:
    """Write what may change. The caller holds the row's lock."""
    await connection.execute(_UPDATE_SQL, rule.id, rule.name, rule.threshold, rule.window_secs, rule.is_active)


async def delete(connection: Connection, rule_id: UUID) -> bool:
    """False if there is none."""
    return await connection.fetchval(_DELETE_SQL, rule_id) is not None


def _rule_of(row: asyncpg.Record) -> StoredRule:
    return StoredRule(**{**dict(row), "rule_type": RuleType(row["rule_type"])})
