"""PgBouncer is restarted while requests and webhooks go through it. It is the test's own, in front of the tests' server."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from mockpay.app import open_parts, running
from mockpay.settings import Settings
from tests.integration.conftest import open_client
from tests.support.fakes import Receiver
from tests.support.gateway import register
from tests.support.servers import Server, free_port, pgbouncer, scratch_folder

UNLIMITED = Settings(rate_limit_tier="unlimited", webhook_backoff_seconds=0.1)
CLIENTS = 5
RESTARTS = 2


class Pooler:
    """On one port, whenever it runs."""

    def __init__(self, folder: Path, server: Server) -> None:
        self._folder = folder
        self._behind = server.address()
        self._port = free_port()
        self._running = ExitStack()
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql://mockpay_application@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        self._running.enter_context(pgbouncer(self._folder, *self._behind, self._port))

    def stop(self) -> None:
        """At once: its clients lose their connections, also in the middle of a transaction."""
        self._running.close()


@pytest.fixture
def pooler(server: Server) -> Iterator[Pooler]:
    with scratch_folder() as folder:
        opened = Pooler(folder, server)
        yield opened
        opened.stop()


async def test_requests_and_webhooks_go_on_after_a_pooler_was_restarted(
    pooler: Pooler, database_name: str, receiver: Receiver, superuser: Any
) -> None:
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    url = pooler.url(database_name)
    enough = asyncio.Event()
    statuses: Counter[int] = Counter()
    async with open_client(url, UNLIMITED) as http, open_parts(UNLIMITED, url) as parts, running(*parts):
        await register(http)
        clients = [asyncio.create_task(pay_on(http, receiver.url, name, enough, statuses)) for name in range(CLIENTS)]
        for _ in range(RESTARTS):
            await reached(statuses, 200, statuses[200] + 2 * CLIENTS)
            await asyncio.to_thread(pooler.stop)
            await reached(statuses, 503, statuses[503] + 1)
            await asyncio.to_thread(pooler.start)
        await reached(statuses, 200, statuses[200] + 2 * CLIENTS)
        enough.set()
        payments = sum(await asyncio.gather(*clients))
        async with asyncio.timeout(15):
            while await superuser.fetchval("SELECT count(*) FROM webhook_deliveries WHERE status = 'delivered'") < payments:  # fmt: skip # noqa: ASYNC110 - it is in other processes
                await asyncio.sleep(0.02)
    for table in ("payments WHERE status = 'success'", "payments", "idempotency_keys", "webhook_deliveries"):
        assert await superuser.fetchval(f"SELECT count(*) FROM {table}") == payments, table
    assert len({received.headers["X-MockPay-Delivery"] for received in receiver.received}) == payments


async def pay_on(
    http: httpx.AsyncClient, webhook_url: str, name: int, enough: asyncio.Event, statuses: Counter[int]
) -> int:
    """One payment after the other, each wanted until it is there; how many."""
    made = 0
    while not enough.is_set():
        body = {"amount": 50, "currency": "USD", "webhook_url": webhook_url}
        headers = {"Idempotency-Key": f"{name}-{made}"}
        created = await until_done(http, "/api/payments", body, headers, statuses, {201})
        simulate = f"/api/payments/{created.json()['id']}/simulate"
        # 409: it was done, and the answer was lost.
        await until_done(http, simulate, {"status": "success"}, {}, statuses, {200, 409})
        made += 1
    return made


async def until_done(
    http: httpx.AsyncClient,
    path: str,
    body: dict[str, Any],
    headers: dict[str, str],
    statuses: Counter[int],
    done: set[int],
) -> httpx.Response:
    while True:
        response = await http.post(path, json=body, headers=headers)
        statuses[response.status_code] += 1
        if response.status_code in done:
            return response
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1"), response.text
        await asyncio.sleep(0.02)  # as a client rests between two tries


async def reached(statuses: Counter[int], status: int, count: int) -> None:
    async with asyncio.timeout(15):
        while statuses[status] < count:  # noqa: ASYNC110 - clients count, who know nothing of this
            await asyncio.sleep(0.01)
