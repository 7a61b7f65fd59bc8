"""Wait for what happens elsewhere, in other tasks or in the database: until a condition holds, and no time by guess."""

import asyncio
from collections.abc import Callable
from typing import Any

from mockpay.postgres.pool import Connection

TIMEOUT_SECONDS = 15
_PAUSE_SECONDS = 0.01


async def until(connection: Connection, question_sql: str, *values: Any) -> None:
    """Until the database's answer is true. Raises TimeoutError."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not await connection.fetchval(question_sql, *values):  # noqa: ASYNC110 - it is in other processes
            await asyncio.sleep(_PAUSE_SECONDS)


async def until_true(question: Callable[[], bool]) -> None:
    """Of what a task of this process does. Raises TimeoutError."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not question():  # noqa: ASYNC110 - who does it knows nothing of who waits
            await asyncio.sleep(_PAUSE_SECONDS)


async def until_blocked(connection: Connection, count: int) -> None:
    """Until so many statements wait for a lock that another one holds. Raises TimeoutError."""
    await until(connection, "SELECT count(*) = $1 FROM pg_locks WHERE NOT granted", count)


async def until_polled(superuser: Connection, times: int = 1) -> None:
    """Until the only worker that runs has asked for work so many times from now on, and was answered.

    The last but one time has then had its effects, since the worker does what it was given before it asks again.
    """
    for _ in range(times):
        began = await superuser.fetchval("SELECT clock_timestamp()")
        await until(
            superuser,
            """
            SELECT count(*) > 0 FROM pg_stat_activity
            WHERE usename = 'mockpay_application' AND datname = current_database()
              AND query LIKE '%webhook_deliveries%' AND state = 'idle' AND query_start > $1
            """,
            began,
        )
