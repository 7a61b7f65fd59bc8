"""Names whose servers never answer: the threads that wait for them have a bound, and each tenant a share of it."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest

from mockpay.app import create_litestar, wrapped
from mockpay.settings import Settings
from mockpay.webhooks.address import AddressGuard
from mockpay.webhooks.resolver import LOOKUPS_OF_TENANT_MAX, THREADS_MAX, Lookups
from tests.integration.conftest import ADMIN_KEY, CONNECTIONS_MAX, lifespan
from tests.support.gateway import Gateway, bearer
from tests.support.queue import add_deliveries, add_tenants

A, B = uuid4(), uuid4()


@dataclass
class Names:
    """Stands for the system's resolver: names that begin with silent have no answer until `answer` is set."""

    addresses: dict[str, str]
    answer: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def look_up(self, host: str, port: int, **_options: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if host.startswith("silent"):
            self.answer.wait()
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.addresses[host], port))]

    @property
    def threads(self) -> int:
        return sum(thread.name.startswith("resolve ") for thread in threading.enumerate())


@pytest.fixture
def names() -> Iterator[Names]:
    made = Names({"good.test": "127.0.0.1", "public.test": "8.8.8.8", "private.test": "10.0.0.1"})
    yield made
    made.answer.set()


@pytest.fixture
def lookups(names: Names) -> Lookups:
    return Lookups(names.look_up)


def ask(lookups: Lookups, tenant: UUID, count: int) -> list["asyncio.Task[Any]"]:
    return [asyncio.create_task(lookups.find(tenant, f"silent{number}.test", 80)) for number in range(count)]


async def until_threads(names: Names, count: int) -> None:
    async with asyncio.timeout(10):
        while names.threads != count:  # noqa: ASYNC110 - they are no tasks
            await asyncio.sleep(0.005)


async def given_up(tasks: list["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_tenant_has_a_share_of_the_threads(names: Names, lookups: Lookups) -> None:
    hanging = ask(lookups, A, 300)
    assert await asyncio.wait_for(lookups.addresses(B, "good.test", 80), 5) == ["127.0.0.1"]
    await until_threads(names, LOOKUPS_OF_TENANT_MAX)
    await given_up(hanging)


async def test_a_thread_counts_until_it_ends(names: Names, lookups: Lookups) -> None:
    """Not until the request does: or whoever gives up and asks anew has as many threads as he likes."""
    for _ in range(5):
        hanging = ask(lookups, A, 50)
        for _ in range(10):
            await asyncio.sleep(0)  # each has begun
        await given_up(hanging)
    assert names.threads == len(names.asked) == LOOKUPS_OF_TENANT_MAX
    names.answer.set()
    await until_threads(names, 0)
    assert await asyncio.wait_for(lookups.addresses(A, "good.test", 80), 5) == ["127.0.0.1"]
    assert lookups._shares == {}, "nothing is remembered of who asks for nothing"


async def test_there_is_a_bound_for_all_tenants_together(names: Names, lookups: Lookups) -> None:
    hanging = [task for _ in range(2 * THREADS_MAX // LOOKUPS_OF_TENANT_MAX) for task in ask(lookups, uuid4(), 20)]
    await until_threads(names, THREADS_MAX)
    names.answer.set()
    outcomes = await asyncio.gather(*hanging, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {socket.gaierror}
    assert names.threads <= THREADS_MAX


async def test_webhooks_to_silent_names_do_not_hold_up_those_of_another_tenant(
    gateway: Gateway, superuser: Any, names: Names, lookups: Lookups
) -> None:
    """Nor do they if they go to the same host, for whose name both ask."""
    hostile, other = await add_tenants(superuser, 2)
    port = gateway.receiver.port
    for number in range(20):
        url = f"http://silent{number}.test/"
        await add_deliveries(superuser, hostile, 1, host=f"silent{number}.test:80", url=url, seconds_ago=900)
    await add_deliveries(
        superuser, hostile, 5, host=f"good.test:{port}", url=f"http://good.test:{port}/", seconds_ago=800
    )
    worker = gateway.worker(lookups=lookups)
    running = asyncio.create_task(worker.run())
    try:
        await until_threads(names, LOOKUPS_OF_TENANT_MAX)
        await add_deliveries(superuser, other, 10, host=f"good.test:{port}", url=f"http://good.test:{port}/")
        await gateway.receiver.wait_for(10, timeout_seconds=4)
        assert names.threads == LOOKUPS_OF_TENANT_MAX
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_an_answer_is_remembered_for_a_moment(gateway: Gateway, superuser: Any, names: Names) -> None:
    gateway.receiver.answer_headers = {"Connection": "close"}
    [tenant] = await add_tenants(superuser, 1)
    port = gateway.receiver.port
    await add_deliveries(superuser, tenant, 16, host=f"good.test:{port}", url=f"http://good.test:{port}/")
    worker = gateway.worker(lookups=Lookups(names.look_up), webhook_concurrency=1)
    running = asyncio.create_task(worker.run())
    await gateway.receiver.wait_for(16)
    worker.stop()
    await running
    assert names.asked == ["good.test"]


PRODUCTION = Settings(env="production", admin_key=ADMIN_KEY, rate_limit_tier="unlimited")


async def register(client: httpx.AsyncClient, email: str) -> dict[str, str]:
    answer = await client.post("/api/auth/register", json={"name": "T", "email": email})
    return bearer(answer.json()["api_key"])


async def test_in_production_hundreds_of_silent_names_hold_up_no_other_tenant(
    database_url: str, names: Names, lookups: Lookups
) -> None:
    """By each of the ways in which a URL comes in."""
    app = create_litestar(PRODUCTION, database_url, with_worker=False)
    transport = httpx.ASGITransport(cast("Any", wrapped(app, CONNECTIONS_MAX)))
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://mockpay.test") as client:
        guard = AddressGuard(allow_private=False, resolve=lookups.addresses)
        app.state.context = replace(app.state.context, address_guard=guard)
        hostile, other = await register(client, "a@example.com"), await register(client, "b@example.com")

        async def create(who: dict[str, str], host: str) -> httpx.Response:
            body = {"amount": 5, "currency": "USD", "webhook_url": f"http://{host}/"}
            return await client.post("/api/payments", json=body, headers=who | {"Idempotency-Key": host})

        asked = [asyncio.create_task(create(hostile, f"silent{number}.test")) for number in range(300)]
        asked += [
            asyncio.create_task(
                client.patch("/api/auth/me", json={"webhook_url": f"http://silent-{number}.test/"}, headers=hostile)
            )
            for number in range(100)
        ]
        await until_threads(names, LOOKUPS_OF_TENANT_MAX)
        async with asyncio.timeout(4):
            created, refused = await create(other, "public.test"), await create(other, "private.test")
            url = f"/api/payments/{created.json()['id']}"
            edited = await client.patch(url, json={"webhook_url": "http://private.test/"}, headers=other)
        assert [created.status_code, refused.status_code, edited.status_code] == [201, 400, 400]
        assert names.threads == LOOKUPS_OF_TENANT_MAX
        names.answer.set()
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {201, 200}
