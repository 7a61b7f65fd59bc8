"""Write and read audit entries, inside the caller's transaction."""

from typing import Final
from uuid import UUID

import asyncpg

from mockpay import exact_json
from mockpay.audit.chain import EMPTY, Content, Entry, Head, link
from mockpay.postgres.parameters import jsonb
from mockpay.postgres.pool import Connection

_HEAD_SQL: Final = """
SELECT sequence, entry_hash FROM audit_log
WHERE tenant_id = $1 AND payment_id = $2 ORDER BY sequence DESC LIMIT 1
"""
_APPEND_SQL: Final = """
INSERT INTO audit_log (tenant_id, payment_id, sequence, id, old_status, new_status, triggered_by, metadata,
                       created_at, prev_hash, entry_hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
_HISTORY_SQL: Final = """
SELECT tenant_id, payment_id, sequence, id, old_status, new_status, triggered_by, metadata, created_at,
       prev_hash, entry_hash
FROM audit_log WHERE tenant_id = $1 AND payment_id = $2 ORDER BY sequence
"""


async def append(connection: Connection, content: Content) -> Entry:
    """The caller holds the payment's row lock, so that the chain can't move meanwhile."""
    entry = link(content, await _head(connection, content))
    await connection.execute(
        _APPEND_SQL,
        content.tenant_id,
        content.payment_id,
        entry.sequence,
        content.id,
        content.old_status,
        content.new_status,
        content.triggered_by,
        jsonb(content.metadata),
        content.created_at,
        entry.prev_hash,
        entry.entry_hash,
    )
    return entry


async def history(connection: Connection, tenant_id: UUID, payment_id: UUID) -> list[Entry]:
    """Every entry of one payment, oldest first."""
    return [entry_of(row) for row in await connection.fetch(_HISTORY_SQL, tenant_id, payment_id)]


async def _head(connection: Connection, content: Content) -> Head:
    row = await connection.fetchrow(_HEAD_SQL, content.tenant_id, content.payment_id)
    return EMPTY if row is None else Head(row["sequence"], row["entry_hash"])


def entry_of(row: asyncpg.Record) -> Entry:
    content = Content(
        id=row["id"],
        tenant_id=row["tenant_id"],
        payment_id=row["payment_id"],
        old_status=row["old_status"],
        new_status=row["new_status"],
        triggered_by=row["triggered_by"],
        metadata=exact_json.decode(row["metadata"]),
        created_at=row["created_at"],
    )
    return Entry(content, row["sequence"], row["prev_hash"], row["entry_hash"])
