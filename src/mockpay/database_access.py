"""Which database, as which role, and in which state: what commands need before they can use it.

Heavy imports are inside the functions: they run while the embedded database starts, not before.
"""

import asyncio
import functools
import importlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from mockpay.errors import StartupError
from mockpay.settings import Settings

if TYPE_CHECKING:
    from mockpay.postgres.embedded import EmbeddedPostgres
    from mockpay.postgres.pool import Connection


@dataclass(frozen=True)
class DatabaseAccess:
    """How to connect: to serve requests, and to migrate, which may be another role."""

    url: str
    migration_url: str
    migration_setting: str = "MOCKPAY_DATABASE_URL"


def check_production(settings: Settings, *, needs_admin_key: bool) -> None:
    """Raises StartupError if production lacks what must not be guessed."""
    if not settings.is_production:
        return
    if not settings.database_url:
        raise StartupError("In production MOCKPAY_DATABASE_URL must be set; the embedded database is for development.")
    if needs_admin_key and not settings.admin_key:
        raise StartupError("In production MOCKPAY_ADMIN_KEY must be set, to at least 16 random characters.")


def external_database(settings: Settings, command: str) -> str:
    """Raises StartupError if there is none."""
    if not settings.database_url:
        raise StartupError(
            f"'mockpay {command}' needs MOCKPAY_DATABASE_URL; 'mockpay serve' brings a database of its own."
        )
    return settings.database_url


@contextmanager
def database(settings: Settings, is_cancelled: Callable[[], bool] = lambda: False) -> Iterator[DatabaseAccess]:
    """The database to use: the external one, or the embedded one for as long as this is open.

    Raises StartupError, and StartCancelled if told to.
    """
    external = _external_access(settings)
    if external:
        yield external
        return
    from mockpay.postgres.embedded import EmbeddedPostgres

    embedded = EmbeddedPostgres(settings.data_folder)
    try:
        embedded.launch()
        importlib.import_module("mockpay.app")  # while the database starts, on the other core
        embedded.wait_until_ready(is_cancelled)
        embedded.keep_running()
        yield _embedded_access(embedded)
    finally:
        embedded.stop()


@contextmanager
def running_database(settings: Settings) -> Iterator[DatabaseAccess]:
    """For commands: like `database`, but joins the embedded one if a `serve` runs it already."""
    check_production(settings, needs_admin_key=False)
    access = _external_access(settings) or _running_embedded(settings)
    if access:
        yield access
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the database is stopped then too
    try:
        with database(settings) as own:
            yield own
    finally:
        signal.signal(signal.SIGTERM, before)


def _external_access(settings: Settings) -> DatabaseAccess | None:
    if not settings.database_url:
        return None
    if not settings.migration_database_url:
        return DatabaseAccess(settings.database_url, settings.database_url)
    return DatabaseAccess(
        settings.database_url, settings.migration_database_url, migration_setting="MOCKPAY_MIGRATION_DATABASE_URL"
    )


def _running_embedded(settings: Settings) -> DatabaseAccess | None:
    from mockpay.postgres.embedded import EmbeddedPostgres

    embedded = EmbeddedPostgres(settings.data_folder)
    return _embedded_access(embedded) if embedded.join() else None


def _embedded_access(embedded: "EmbeddedPostgres") -> DatabaseAccess:
    from mockpay.postgres.embedded import APPLICATION, OWNER

    return DatabaseAccess(embedded.url(APPLICATION), embedded.url(OWNER))


async def migrate(access: DatabaseAccess) -> list[str]:
    """Apply what is missing; the names of what was. Raises StartupError."""
    from mockpay.postgres import migrate as migrations
    from mockpay.postgres.rights import server_of, who_and_where

    application = None
    async with connection_to(access.migration_url, access.migration_setting) as connection:
        if access.url != access.migration_url:
            migrated = await who_and_where(connection)
            async with connection_to(access.url) as other:
                used = await who_and_where(other)
                servers = {await server_of(connection), await server_of(other)} - {None}
            application = used.role
            if used.database != migrated.database or len(servers) > 1:
                where = "" if used.database != migrated.database else " of another server"
                raise StartupError(
                    f"MOCKPAY_DATABASE_URL leads to the database {used.database}, and {access.migration_setting} to "
                    f"{migrated.database}{where}; they must lead to the same."
                )
        applied = await migrations.migrate(connection, migrations.bundled_migrations(), application)
    return [migration.name for migration in applied]


async def migrate_and_check(settings: Settings, access: DatabaseAccess) -> list[str]:
    """The same, and see that requests can be served then. Raises StartupError."""
    applied = await migrate(access)
    await check_database(settings, access.url)
    return applied


def migrate_patiently(settings: Settings, access: DatabaseAccess) -> None:
    from mockpay.postgres.pool import patiently

    asyncio.run(patiently(functools.partial(migrate_and_check, settings, access), settings.start_patience_seconds))


async def check_database(settings: Settings, url: str) -> None:
    """Raises StartupError if the schema is not this program's, or the role lacks a right that requests need."""
    from mockpay.postgres import rights

    async with connection_to(url) as connection:
        await _check_migrated(connection)
        role = (await rights.who_and_where(connection)).role
        await _check_rights(connection, role)
        if settings.is_production or settings.migration_database_url:
            await _tell_excess(connection, role)


async def _check_rights(connection: "Connection", role: str) -> None:
    from mockpay.postgres import rights

    lacking = await rights.lacking(connection, role)
    if lacking:
        raise StartupError(
            f"The database role {role} lacks rights: {', '.join(lacking)}; "
            "run 'mockpay migrate' with MOCKPAY_MIGRATION_DATABASE_URL set to the role that owns the tables."
        )


async def _tell_excess(connection: "Connection", role: str) -> None:
    from mockpay.postgres import rights

    excess = await rights.excess(connection, role)
    if excess:
        structlog.stdlib.get_logger("mockpay.database").warning(
            "requests are served as a role that may do more than they need, such as to change the audit trail",
            role=role,
            excess=excess,
            remedy="see 'Two roles' in docs/operations.md",
        )


async def _check_migrated(connection: "Connection") -> None:
    from mockpay.postgres.migrate import bundled_migrations, is_current

    if not await is_current(connection, bundled_migrations()):
        raise StartupError(
            "The database is not migrated to this version of MockPay, or this role was given no rights in it; "
            "run 'mockpay migrate' first."
        )


@asynccontextmanager
async def connection_to(url: str, setting: str = "MOCKPAY_DATABASE_URL") -> "AsyncIterator[Connection]":
    from mockpay.postgres.pool import connect

    connection = await connect(url, setting)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def snapshot(url: str) -> "AsyncIterator[Connection]":
    """Everything that is read is of one moment. Raises StartupError, also where the database goes away in between."""
    import asyncpg

    try:
        async with connection_to(url) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            await _check_migrated(connection)
            yield connection
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise StartupError(f"The database could not be read to the end: {error}; run the command again.") from error
