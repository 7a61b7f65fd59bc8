"""The database is read-only, as a standby is until it is promoted; and it is restarted. Requests get a 503 meanwhile."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import NoneType

import httpx
import pytest

from mockpay.app import open_parts, running
from mockpay.errors import DatabaseUnavailable
from mockpay.housekeeping import clean_once
from mockpay.postgres.pool import Connection, Database, connect, open_database
from mockpay.settings import Settings
from tests.integration.conftest import open_client
from tests.integration.test_outage import KILL_SQL
from tests.support.databases import as_superuser
from tests.support.fakes import Receiver
from tests.support.gateway import Gateway, register
from tests.support.servers import Server, scratch_folder
from tests.support.standby import Standby, open_standby

UNLIMITED = Settings(rate_limit_tier="unlimited")
CONNECTIONS = 4


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder() as made:
        yield made


async def create(client: httpx.AsyncClient, key: str) -> httpx.Response:
    body = {"amount": 50, "currency": "USD"}
    return await client.post("/api/payments", json=body, headers={"Idempotency-Key": key})


async def create_until_done(client: httpx.AsyncClient, key: str) -> Counter[int]:
    """With the same key again and again; what the answers were."""
    statuses: Counter[int] = Counter()
    async with asyncio.timeout(15):
        while 201 not in statuses:
            response = await create(client, key)
            statuses[response.status_code] += 1
            assert response.status_code == 201 or response.headers["Retry-After"] == "1", response.text
            await asyncio.sleep(0.02)  # as a client rests between two tries
    return statuses


async def test_a_standby_is_promoted_and_restarted(
    gateway: Gateway, receiver: Receiver, server: Server, database_name: str, folder: Path, client: httpx.AsyncClient
) -> None:
    api_key = await register(client)
    waiting = await gateway.succeeded("a webhook that nobody delivered yet")
    with open_standby(folder, server) as standby:
        url = standby.url(database_name)
        async with open_client(url, UNLIMITED) as http, open_parts(UNLIMITED, url) as parts, running(*parts):
            http.headers["Authorization"] = f"Bearer {api_key}"
            await check_read_only(http)
            with pytest.raises(DatabaseUnavailable):  # it begins with a table that a standby does not even have
                await clean_once(parts[0])
            assert receiver.received == []
            await promote(standby)
            assert set(await create_until_done(http, "refused")) <= {201, 503}
            [received] = await receiver.wait_for(1)
            assert str(waiting.id).encode() in received.body
            await check_restart(http, standby)
        await check_nothing_was_done_by_halves(standby, database_name)


async def check_read_only(http: httpx.AsyncClient) -> None:
    """Reading needs to write too: each request is counted."""
    for response in (await create(http, "refused"), await http.get("/api/payments"), await http.get("/ready")):
        assert (response.status_code, response.headers.get("Retry-After")) == (503, "1"), response.text
        assert response.json()["code"] == "database_unavailable"
    assert (await http.get("/health")).status_code == 200


async def promote(standby: Standby) -> None:
    connection = await connect(standby.url("postgres", "postgres"))
    assert await connection.fetchval("SELECT pg_promote()")
    await connection.close()


async def check_restart(http: httpx.AsyncClient, standby: Standby) -> None:
    """Of a server that stops without waiting for whoever is connected, under requests."""
    clients = [asyncio.create_task(create_until_done(http, f"client-{number}")) for number in range(10)]
    await asyncio.to_thread(standby.stop)
    assert (await create(http, "client-0")).status_code == 503
    await asyncio.to_thread(standby.start)
    for seen in await asyncio.gather(*clients):
        assert set(seen) <= {201, 503}
    assert (await http.get("/ready")).status_code == 200


async def check_nothing_was_done_by_halves(standby: Standby, database_name: str) -> None:
    connection = await connect(standby.url(database_name, "postgres"))
    counts = [
        await connection.fetchval(statement)
        for statement in (
            "SELECT count(*) FROM payments",
            "SELECT count(*) FROM idempotency_keys",
            "SELECT count(*) FROM audit_log WHERE sequence = 1",
        )
    ]
    await connection.close()
    assert counts == [12, 12, 12]


@pytest.mark.usefixtures("credentials")
async def test_a_connection_to_a_server_that_was_read_only_is_not_used_again(
    database_url: str, database_name: str, server: Server, superuser: Connection
) -> None:
    """A session that began there stays read-only, whatever becomes of the server. Behind a pooler sessions are not ours."""
    database = await open_database(database_url, CONNECTIONS)
    await as_superuser(server, f"ALTER DATABASE {database_name} SET default_transaction_read_only = on")
    await superuser.execute(KILL_SQL)
    assert await refusals(database) == 2 * CONNECTIONS
    await as_superuser(server, f"ALTER DATABASE {database_name} RESET default_transaction_read_only")
    # The pool keeps one open by itself, which nobody has used yet.
    assert await refusals(database) <= 1
    assert await refusals(database) == 0
    await database.close()


async def refusals(database: Database) -> int:
    """By more transactions at once than there are connections."""
    outcomes = await asyncio.gather(*(toggle(database) for _ in range(2 * CONNECTIONS)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {NoneType, DatabaseUnavailable}, outcomes
    return sum(outcome is not None for outcome in outcomes)


async def toggle(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("UPDATE fraud_rules SET is_active = NOT is_active")
