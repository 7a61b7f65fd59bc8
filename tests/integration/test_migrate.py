"""Migrations: once, together, unedited, and never backwards."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mockpay.errors import StartupError
from mockpay.postgres.migrate import Migration, bundled_migrations, is_current, migrate
from mockpay.postgres.pool import Connection, connect


async def migrate_once(url: str, migrations: list[Migration] | None = None) -> list[Migration]:
    connection = await connect(url)
    try:
        return await migrate(connection, migrations or bundled_migrations())
    finally:
        await connection.close()


async def test_ten_at_once_apply_each_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate_once(empty_database_url) for _ in range(10)))
    assert sorted(len(each) for each in applied) == [0] * 9 + [len(bundled_migrations())]


async def test_a_second_run_does_nothing(owner_url: str) -> None:
    assert await migrate_once(owner_url) == []
    connection = await connect(owner_url)
    assert await is_current(connection, bundled_migrations())
    await connection.close()


async def test_an_edited_migration_is_refused(owner_url: str) -> None:
    first, *rest = bundled_migrations()
    with pytest.raises(StartupError, match=r"0001_first_light\.sql was edited"):
        await migrate_once(owner_url, [replace(first, sql=first.sql + "\n-- edited"), *rest])


async def test_a_database_newer_than_the_program_is_refused(owner_url: str) -> None:
    newer = Migration(9999, "9999_from_the_future.sql", "CREATE TABLE future ()")
    await migrate_once(owner_url, [*bundled_migrations(), newer])
    with pytest.raises(StartupError, match=r"newer than this MockPay.*9999_from_the_future"):
        await migrate_once(owner_url)


async def test_a_migration_that_fails_leaves_nothing_of_those_before_it(empty_database_url: str) -> None:
    broken = Migration(9999, "9999_broken.sql", "CREATE TABLE half (); SELECT 1 / 0")
    with pytest.raises(Exception, match="division by zero"):
        await migrate_once(empty_database_url, [*bundled_migrations(), broken])
    assert len(await migrate_once(empty_database_url)) == len(bundled_migrations())


@pytest.fixture
async def before_fair_deliveries(empty_database_url: str) -> AsyncIterator[Connection]:
    """The owner's connection to a database as an older version left it."""
    await migrate_once(empty_database_url, [each for each in bundled_migrations() if each.version < 12])
    connection = await connect(empty_database_url)
    yield connection
    await connection.close()


TENANTS = """
INSERT INTO tenants (id, name, email, api_key_sha256, rate_limit_tier, created_at)
SELECT gen_random_uuid(), 'T', number || '@example.com', sha256(number::text::bytea), 'standard', now()
FROM generate_series(1, 5) AS number
"""
# The first has rotated 50,000 times, the last one never; the secret says how long ago, in minutes.
SECRETS = """
INSERT INTO webhook_secrets (tenant_id, id, secret, created_at, expires_at)
SELECT tenants.id, gen_random_uuid(), lpad(age::text, 64, '0'), now() - age * interval '1 minute',
       CASE age WHEN 0 THEN NULL WHEN 1 THEN now() + interval '1 day' ELSE now() - (age - 1) * interval '1 minute' END
FROM tenants,
     generate_series(0, CASE email WHEN '1@example.com' THEN 50000 WHEN '5@example.com' THEN 0 ELSE 2 END) AS age
"""
KEPT = """
SELECT email, array_agg(secret::integer ORDER BY secret) AS ages
FROM webhook_secrets JOIN tenants ON tenants.id = tenant_id GROUP BY email ORDER BY email
"""


async def test_secrets_that_piled_up_are_deleted_but_for_those_that_are_of_use(
    before_fair_deliveries: Connection, empty_database_url: str
) -> None:
    connection = before_fair_deliveries
    await connection.execute(TENANTS)
    await connection.execute(SECRETS)
    started = time.monotonic()
    await migrate_once(empty_database_url)
    assert time.monotonic() - started < 10
    kept = [tuple(row) for row in await connection.fetch(KEPT)]
    assert kept == [*((f"{number}@example.com", [0, 1]) for number in range(1, 5)), ("5@example.com", [0])]
