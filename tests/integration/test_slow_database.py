"""The database is slow: a table is locked. Who needs it waits, up to a time; the others are served."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

from mockpay.context import Context
from mockpay.errors import DatabaseUnavailable
from mockpay.postgres import pool
from mockpay.postgres.pool import Connection, Database, open_database
from mockpay.settings import Settings
from mockpay.tenants.model import Tenant
from mockpay.webhooks.address import AddressGuard
from tests.support.fakes import FakeClock, Receiver
from tests.support.gateway import Gateway
from tests.support.waiting import until_blocked

LOCK = "LOCK TABLE payments IN ACCESS EXCLUSIVE MODE"
STATEMENT_TIMEOUT_SECONDS = 0.3
HANGING_TIMEOUT_SECONDS = 2.0


@pytest.mark.usefixtures("api_key")
async def test_who_does_not_need_what_is_slow_is_served(client: httpx.AsyncClient, superuser: Any) -> None:
    headers = {"Idempotency-Key": "k"}
    body = {"amount": 50, "currency": "USD"}
    async with superuser.transaction():
        await superuser.execute(LOCK)
        slow = asyncio.create_task(client.post("/api/payments", json=body, headers=headers))
        await until_blocked(superuser, 1)
        for path in ("/health", "/ready", "/api/auth/me", "/api/webhooks/deliveries"):
            assert (await client.get(path)).status_code == 200, path
        assert not slow.done()
    assert (await slow).status_code == 201


async def test_a_statement_that_takes_too_long_is_given_up_and_nothing_is_done(
    database_url: str, settings: Settings, clock: FakeClock, tenant: Tenant, receiver: Receiver, superuser: Any
) -> None:
    database = await open_database(database_url, 4, STATEMENT_TIMEOUT_SECONDS)
    guard = AddressGuard(allow_private=True)
    context = Context(settings=settings, database=database, address_guard=guard, started_at=clock.now(), clock=clock)
    gateway = Gateway(context, tenant, receiver)
    async with superuser.transaction():
        await superuser.execute(LOCK)
        with pytest.raises(DatabaseUnavailable):
            await gateway.create("k")
        await until_blocked(superuser, 0)  # nor does the server go on with it when the lock is gone
    assert await superuser.fetchval("SELECT count(*) FROM payments") == 0
    assert (await gateway.create("k")).status == "pending"
    assert database.usage().in_use == 0
    await database.close()


@asynccontextmanager
async def hanging(
    database_url: str, statement_timeout_seconds: float
) -> AsyncIterator[tuple[Database, Callable[[], None]]]:
    """A database with one connection, and what lets its server hang: until the end of this, when all is as before."""
    database = await open_database(database_url, 1, statement_timeout_seconds)
    async with database.connection() as connection:
        server = await connection.fetchval("SELECT pg_backend_pid()")
    try:
        yield database, lambda: os.kill(server, signal.SIGSTOP)
    finally:
        os.kill(server, signal.SIGCONT)
    assert database.usage().in_use == 0
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await database.close()


async def ask(lent: AbstractAsyncContextManager[Connection], hang: Callable[[], None] = lambda: None) -> None:
    async with lent as connection:
        await connection.fetchval("SELECT 1")
        hang()
        await connection.fetchval("SELECT 1")


@pytest.mark.parametrize("kind", ["transaction", "snapshot", "connection"])
async def test_a_server_that_hangs_is_waited_for_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """And not again for each thing that would be asked of it to end in good order."""
    monkeypatch.setattr(pool, "CANCEL_TIMEOUT_SECONDS", 0.2)
    async with hanging(database_url, HANGING_TIMEOUT_SECONDS) as (database, hang):
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable) as raised:
            await ask(getattr(database, kind)(), hang)
        assert time.monotonic() - started < 1.7 * HANGING_TIMEOUT_SECONDS
        assert isinstance(raised.value.__cause__, TimeoutError), "which the log names"


@pytest.mark.parametrize("when", ["before its time is over", "while it is given up", "in BEGIN"])
@pytest.mark.parametrize("kind", ["transaction", "snapshot", "connection"])
async def test_a_task_in_the_middle_of_a_statement_can_be_cancelled(
    database_url: str, monkeypatch: pytest.MonkeyPatch, kind: str, when: str
) -> None:
    """Though the server hangs; else a stop would never end."""
    is_given_up = when == "while it is given up"
    monkeypatch.setattr(pool, "CANCEL_TIMEOUT_SECONDS", 5.0 if is_given_up else 0.2)
    statement_timeout = STATEMENT_TIMEOUT_SECONDS if is_given_up else pool.STATEMENT_TIMEOUT_SECONDS
    async with hanging(database_url, statement_timeout) as (database, hang):
        if when == "in BEGIN":
            hang()
            asking = asyncio.create_task(ask(getattr(database, kind)()))
        else:
            asking = asyncio.create_task(ask(getattr(database, kind)(), hang))
        # A server that hangs gives no sign, so only time tells: the statement's own is over then, and it is given up.
        await asyncio.sleep(2 * STATEMENT_TIMEOUT_SECONDS)
        assert not asking.done()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await asking


async def test_a_thousand_requests_at_a_server_that_hangs_wait_no_longer_than_one(
    database_url: str, settings: Settings, clock: FakeClock, tenant: Tenant, receiver: Receiver
) -> None:
    """They are many batches, and the second would begin when the first one's time is over."""
    async with hanging(database_url, HANGING_TIMEOUT_SECONDS) as (database, hang):
        guard = AddressGuard(allow_private=True)
        context = Context(
            settings=settings, database=database, address_guard=guard, started_at=clock.now(), clock=clock
        )
        gateway = Gateway(context, tenant, receiver)
        hang()
        started = time.monotonic()
        answers = await asyncio.gather(
            *(gateway.create(f"k{number}") for number in range(1000)), return_exceptions=True
        )
        assert {type(answer) for answer in answers} == {DatabaseUnavailable}
        assert time.monotonic() - started < 2 * HANGING_TIMEOUT_SECONDS + pool.CANCEL_TIMEOUT_SECONDS
