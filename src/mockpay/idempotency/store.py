"""The table of keys, and the answers that they stand for."""

from datetime import timedelta
from typing import Final

import asyncpg

from mockpay.idempotency.model import Stored
from mockpay.postgres.pool import Connection

FORGOTTEN_AT_ONCE: Final = 1000
# In small steps along the index of their age. The limit is no parameter: of one the planner expects a tenth of all.
_FORGET_SQL: Final = """
WITH old AS (
    SELECT tenant_id, key FROM idempotency_keys
    WHERE created_at < now() - $1::interval
    ORDER BY created_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
),
forgotten AS (
    DELETE FROM idempotency_keys AS held USING old
    WHERE held.tenant_id = old.tenant_id AND held.key = old.key
    RETURNING held.key
)
SELECT count(*) FROM forgotten
"""


def stored_of(row: asyncpg.Record) -> Stored:
    return Stored(row["fingerprint"], row["fingerprint_version"], row["answer_status"], row["answer_body"])


async def forget(connection: Connection, age: timedelta) -> int:
    """Frees up to FORGOTTEN_AT_ONCE keys that are older, and returns how many it were."""
    count: int = await connection.fetchval(_FORGET_SQL, age)
    return count
