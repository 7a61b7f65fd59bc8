"""Migrations: once, together, unedited, and never backwards."""

import asyncio
from dataclasses import replace

import pytest

from mockpay.errors import StartupError
from mockpay.postgres.migrate import Migration, bundled_migrations, is_current, migrate
from mockpay.postgres.pool import connect


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
