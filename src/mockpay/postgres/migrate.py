"""Numbered SQL files, each applied once. Safe when many processes start together: one transaction, one lock."""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import asyncpg
import structlog

from mockpay.errors import StartupError
from mockpay.postgres import rights
from mockpay.postgres.pool import Connection

# Any constant will do that no other program on a shared server is likely to take.
_LOCK_SQL: Final = "SELECT pg_advisory_xact_lock(7305431920263)"
_IS_NEW_SQL: Final = "SELECT to_regclass('schema_migrations') IS NULL"
_CREATE_TABLE_SQL: Final = """
CREATE TABLE schema_migrations (
    version integer CONSTRAINT schema_migrations_pkey PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_APPLIED_SQL: Final = "SELECT version, name, checksum FROM schema_migrations ORDER BY version"
_RECORD_SQL: Final = "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)"
_LATEST_SQL: Final = "SELECT max(version) FROM schema_migrations"

DEADLOCKS_MAX: Final = 5
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

log = structlog.stdlib.get_logger("mockpay.migrate")


@dataclass(frozen=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def bundled_migrations() -> list[Migration]:
    """The migrations that this program carries, in order."""
    folder = files("mockpay.postgres") / "migrations"
    matches = [(_FILE_NAME.fullmatch(file.name), file) for file in folder.iterdir()]
    return sorted(
        (Migration(int(match[1]), file.name, file.read_text(encoding="utf-8")) for match, file in matches if match),
        key=lambda migration: migration.version,
    )


async def migrate(
    connection: Connection, migrations: list[Migration], application: str | None = None
) -> list[Migration]:
    """Apply what is missing, all or nothing, and return it. The role `application`, if it is another, gets its rights.

    Raises StartupError if an applied migration was edited, the database is newer than this program, or this role may
    not do what there is to do. With nothing to do, any role will do.
    """
    role = (await rights.who_and_where(connection)).role
    try:
        missing = await _migrate_persistently(connection, migrations, application if application != role else None)
    except asyncpg.InsufficientPrivilegeError as error:
        raise StartupError(
            f"The database role {role} may not change MockPay's schema ({error}); "
            "set MOCKPAY_MIGRATION_DATABASE_URL to the role that owns it, all of it."
        ) from error
    for migration in missing:
        log.info("migration applied", migration=migration.name)
    return missing


async def _migrate_persistently(
    connection: Connection, migrations: list[Migration], application: str | None
) -> list[Migration]:
    """Tries again where a process of the version before, which still runs, locked its tables in another order."""
    for attempt in range(1, DEADLOCKS_MAX + 1):
        try:
            async with connection.transaction():
                # A lock of the transaction, not the session: it works through a transaction pooler too.
                await connection.execute(_LOCK_SQL)
                missing = await _apply_missing(connection, migrations)
                if await rights.owns_the_schema(connection):
                    await rights.protect_audit(connection)
                    if application is not None:
                        await rights.give(connection, application)
            return missing
        except asyncpg.DeadlockDetectedError:
            if attempt == DEADLOCKS_MAX:
                raise
            log.warning("a migration met a request that was under way, and is tried again")
    raise AssertionError("the last attempt returns or raises")


async def _apply_missing(connection: Connection, migrations: list[Migration]) -> list[Migration]:
    if await connection.fetchval(_IS_NEW_SQL):
        await connection.execute(_CREATE_TABLE_SQL)
    rows = await connection.fetch(_APPLIED_SQL)
    missing = pending(migrations, {row["version"]: (row["name"], row["checksum"]) for row in rows})
    for migration in missing:
        await connection.execute(migration.sql)
        await connection.execute(_RECORD_SQL, migration.version, migration.name, migration.checksum)
    return missing


def pending(migrations: list[Migration], applied: dict[int, tuple[str, str]]) -> list[Migration]:
    """What remains to apply. `applied` maps a version to its name and checksum. Raises StartupError."""
    known = {migration.version: migration for migration in migrations}
    for version, (name, checksum) in applied.items():
        if version not in known:
            raise StartupError(
                f"The database is newer than this MockPay: it has migration {name}, which this program does not "
                "know; upgrade MockPay, or point it at another database."
            )
        if known[version].checksum != checksum:
            raise StartupError(
                f"Migration {known[version].name} was edited after it was applied to this database; "
                "restore the file, and put the change into a new migration."
            )
    return [migration for migration in migrations if migration.version not in applied]


async def is_current(connection: Connection, migrations: list[Migration]) -> bool:
    """Whether the newest migration is applied. It is not where there are no tables, or none that this role may read."""
    try:
        latest: int | None = await connection.fetchval(_LATEST_SQL)
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        return False
    return latest == migrations[-1].version
