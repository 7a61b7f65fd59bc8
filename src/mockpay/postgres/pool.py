"""The way to the database: pooled connections, one transaction a request, and one error when it is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import asyncpg
import structlog

from mockpay.errors import DatabaseUnavailable, DatabaseUnreachable, StartupError

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

OLDEST_SERVER: Final = 15
ACQUIRE_TIMEOUT_SECONDS: Final = 10.0
STATEMENT_TIMEOUT_SECONDS: Final = 30.0
CONNECT_TIMEOUT_SECONDS: Final = 10.0
CANCEL_TIMEOUT_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.2
STATEMENTS_CACHED: Final = 200
SESSION_SETTINGS: Final = {
    # A process that froze inside a transaction must not hold its locks for ever.
    "idle_in_transaction_session_timeout": "15s",
    # What is read lies in memory, or on a disk without moving parts. The default has the planner read a window of an
    # index as a whole where it is after the first few rows of it.
    "random_page_cost": "1.1",
}

# What a client should retry: the server is gone, going, full, or read-only after a failover.
UNAVAILABLE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.FeatureNotSupportedError,  # what a standby says of a table that is not logged
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg says where the connection is lost in the middle of an exchange
    OSError,
    asyncio.TimeoutError,
)

_BACKEND_SQL: Final = "SELECT pg_backend_pid()"
_READ_ONLY_SQL: Final = "SELECT current_setting('transaction_read_only')::boolean"

log = structlog.stdlib.get_logger("mockpay.database")


@dataclass(frozen=True)
class PoolUsage:
    """Connections: lent out, open and free, and the most there may be."""

    in_use: int
    idle: int
    limit: int


class Database:
    """A pool of connections. A request holds one connection at most, so that waiting for one can't deadlock."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction: returning commits, raising rolls back.

        Raises DatabaseUnavailable when the database can't be used; nothing was done then, unless the connection
        was lost during the commit itself, which only a repeat under the same idempotency key can tell.
        """
        async with self.connection() as connection, _transaction(connection):
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Everything that is read is of one moment. Raises DatabaseUnavailable."""
        async with (
            self.connection() as connection,
            _transaction(connection, isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for single statements. Raises DatabaseUnavailable."""
        try:
            connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
        except (*UNAVAILABLE, asyncpg.PostgresError) as error:
            raise DatabaseUnavailable from error
        try:
            # What the pool lends is a proxy with every method of a connection.
            yield cast("Connection", connection)
        except asyncpg.DataError:
            raise  # an InterfaceError to asyncpg, but it says that an argument of ours was wrong
        except asyncpg.IntegrityConstraintViolationError as error:
            error.detail = None  # it quotes the row, which may be a secret's; the message names the constraint
            raise
        except UNAVAILABLE as error:
            if isinstance(error, TimeoutError):
                await _give_up_statement(connection)
            with suppress(asyncpg.InterfaceError):  # the pool may have it back already
                connection.terminate()  # it may be half alive, and must not be lent again
            raise DatabaseUnavailable from error
        except asyncio.CancelledError:
            # In the middle of a statement, perhaps, for whose end the pool would wait; and what it raised then would
            # take the place of the cancellation, which is not asked for twice.
            await _give_up_statement(connection)
            raise
        finally:
            with suppress(*UNAVAILABLE, asyncpg.PostgresError):  # then it is not lent again; what was done is done
                await self._pool.release(connection)

    def usage(self) -> PoolUsage:
        """Of this process."""
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        return PoolUsage(size - idle, idle, self._pool.get_max_size())

    async def close(self) -> None:
        """Waits for running statements, but not for ever."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


async def check_writable(connection: Connection) -> None:
    """Raises what a write would, ReadOnlySQLTransactionError: then the connection is not lent again."""
    if await connection.fetchval(_READ_ONLY_SQL):
        raise asyncpg.ReadOnlySQLTransactionError("the database is read-only, as a standby is until it is promoted")


@asynccontextmanager
async def _transaction(connection: Connection, **options: Any) -> AsyncIterator[None]:
    """What was raised inside goes on, whatever becomes of the rollback. In asyncpg's own context an error of the
    connection takes the place of a cancellation, which is then lost.

    Where a statement did not come to its end the connection is closed by who lent it, which ends the transaction as
    well. A rollback would wait for a server that hangs.
    """
    transaction = connection.transaction(**options)
    await transaction.start()
    try:
        yield
    except (TimeoutError, asyncio.CancelledError):
        raise
    except BaseException:
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_SECONDS):
                await transaction.rollback()
        except (*UNAVAILABLE, asyncpg.PostgresError):
            with suppress(asyncpg.InterfaceError):
                connection.terminate()
        raise
    await transaction.commit()


async def _give_up_statement(connection: asyncpg.pool.PoolConnectionProxy) -> None:
    """Close the connection. The server is asked to cancel what it does for it. It would go on else, and commit what its
    client was told is not done.
    """
    with suppress(TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        async with asyncio.timeout(CANCEL_TIMEOUT_SECONDS):
            await connection.close()


Result = TypeVar("Result")


async def patiently(work: Callable[[], Awaitable[Result]], seconds: float) -> Result:
    """Try again, for so long, where the database is away: the embedded one is started again when it ended."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await work()
        except (DatabaseUnreachable, *UNAVAILABLE):
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(RETRY_SECONDS)


async def connect(url: str, setting: str = "MOCKPAY_DATABASE_URL") -> Connection:
    """One connection, for migrations and commands. `setting` is where the URL is from.

    Raises StartupError if the server refuses it or is too old.
    """
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS, statement_cache_size=0)
    except (asyncpg.ClientConfigurationError, ValueError):
        # Without the cause, whose text can quote a part of the password.
        raise StartupError(
            f"{setting} is malformed; it must look like postgresql://user:password@host:5432/database, "
            "with special characters in the password written as %XX."
        ) from None
    except (*UNAVAILABLE, asyncpg.PostgresError) as error:
        reason = str(error).strip() or type(error).__name__
        raise DatabaseUnreachable(
            f"Can't connect to the database ({reason}); check {setting}, and that the server is up."
        ) from error
    await _check_version(connection)
    return connection


async def _check_version(connection: Connection) -> None:
    major = connection.get_server_version().major
    if major < OLDEST_SERVER:
        await connection.close()
        raise StartupError(
            f"The database is PostgreSQL {major}, and MockPay needs {OLDEST_SERVER} or newer; "
            "upgrade it, or unset MOCKPAY_DATABASE_URL to use the embedded one."
        )


async def open_database(
    url: str, connections: int, statement_timeout_seconds: float = STATEMENT_TIMEOUT_SECONDS
) -> Database:
    """Raises StartupError if the server can't be reached or is too old."""
    behind_pooler = await _is_behind_pooler(url)
    pool = await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=connections,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=statement_timeout_seconds,
        statement_cache_size=0 if behind_pooler else STATEMENTS_CACHED,
        # A pooler passes no such settings on; there it is the server's own setting that counts.
        server_settings={} if behind_pooler else SESSION_SETTINGS,
        reset=_keep_session,
    )
    return Database(pool)


async def _keep_session(_connection: object) -> None:
    """No session state is ever set, so none needs the round trip that would reset it."""


async def _is_behind_pooler(url: str) -> bool:
    """Tell a pooler such as PgBouncer, behind which prepared statements can't be kept, by its made-up process id."""
    connection = await connect(url)
    try:
        behind_pooler: bool = await connection.fetchval(_BACKEND_SQL) != connection.get_server_pid()
        if behind_pooler:
            log.info("a connection pooler is in front of the database; prepared statements are off")
        return behind_pooler
    finally:
        await connection.close()
