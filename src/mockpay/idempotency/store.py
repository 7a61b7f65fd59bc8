"""The table of keys, and the answers that they stand for."""

from datetime import datetime, timedelta
from typing import Final

import asyncpg

from mockpay.idempotency.model import Stored
from mockpay.postgres.pool import Connection

FORGOTTEN_AT_ONCE: Final = 1000
# In small steps along the index of their age, from `$1`, where the one before ended: at the start of the index stands
# what that one removed. The limit is no parameter: of one the planner expects a tenth of all.
_FORGET_SQL: Final = """
WITH old AS (
    SELECT tenant_id, key, created_at FROM idempotency_keys
    WHERE created_at >= $1 AND created_at < now() - $2::interval
    ORDER BY created_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
),
forgotten AS (
    DELETE FROM idempotency_keys AS held USING old
    WHERE held.tenant_id = old.tenant_id AND held.key = old.key
    RETURNING held.created_at
)
SELECT count(*) AS count, max(created_at) AS latest FROM forgotten
"""


def stored_of(row: asyncpg.Record) -> Stored:
    """Reads it from a row that has the columns of the table."""
    return Stored(row["fingerprint"], row["fingerprint_version"], row["answer_status"], row["answer_body"])


async def forget(connection: Connection, *, since: datetime, age: timedelta) -> tuple[int, datetime | None]:
    """Frees up to FORGOTTEN_AT_ONCE keys that are older than `age`, and not from before `since`, oldest first.

    Returns how many it freed, and the time of the last of them.
    """
    row = await connection.fetchrow(_FORGET_SQL, since, age)
    assert row is not None, "a count has one row"
    return row["count"], row["latest"]
