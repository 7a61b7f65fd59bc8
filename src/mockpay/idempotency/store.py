"""Do work once for each key, inside the caller's transaction."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from mockpay.errors import IdempotencyKeyReused
from mockpay.idempotency.model import Answer, KeyedRequest, Stored
from mockpay.postgres.pool import Connection

# Where the first request with this key is still under way, this waits for its end: it then returns no row if that
# one committed, and takes the key over if that one rolled back.
_RESERVE_SQL: Final = """
INSERT INTO idempotency_keys (tenant_id, key, fingerprint, created_at)
VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING key
"""
_STORED_SQL: Final = """
SELECT fingerprint, answer_status, answer_body FROM idempotency_keys WHERE tenant_id = $1 AND key = $2
"""
_KEEP_SQL: Final = """
UPDATE idempotency_keys SET answer_status = $3, answer_body = $4 WHERE tenant_id = $1 AND key = $2
"""


async def run_once(
    connection: Connection,
    tenant_id: UUID,
    request: KeyedRequest | None,
    now: datetime,
    work: Callable[[], Awaitable[Answer]],
) -> Answer:
    """Do `work`, or return what it answered the first time. Without a key it is simply done.

    What `work` raises rolls the transaction back, and the key with it: a failed request stores nothing.

    Raises IdempotencyKeyReused if the key belongs to another request.
    """
    if request is None:
        return await work()
    if await connection.fetchval(_RESERVE_SQL, tenant_id, request.key, request.fingerprint, now) is None:
        return await _stored(connection, tenant_id, request)
    answer = await work()
    await connection.execute(_KEEP_SQL, tenant_id, request.key, answer.status, answer.body)
    return answer


def stored_of(row: asyncpg.Record) -> Stored:
    return Stored(row["fingerprint"], row["answer_status"], row["answer_body"])


async def _stored(connection: Connection, tenant_id: UUID, request: KeyedRequest) -> Answer:
    row = await connection.fetchrow(_STORED_SQL, tenant_id, request.key)
    assert row is not None, "a committed idempotency key can't vanish"
    answer = stored_of(row).answer_to(request)
    if isinstance(answer, IdempotencyKeyReused):
        raise answer
    return answer
