"""A database that tells which statements were sent to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mockpay.postgres.pool import Connection, Database, open_database


class CountingDatabase(Database):
    """`statements` are those that were sent, in their order, without BEGIN and COMMIT."""

    statements: list[str]

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with super().connection() as connection:
            logged: Any = connection  # the pool's proxy has every method of a connection
            with logged.query_logger(lambda record: self.statements.append(record.query)):
                yield connection


async def open_counting_database(url: str, connections: int) -> CountingDatabase:
    database = await open_database(url, connections)
    counting = CountingDatabase(database._pool)
    counting.statements = []
    return counting
