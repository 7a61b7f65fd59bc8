"""Fixtures over the application: a context with a fake clock, an HTTP client of the whole app, a tenant."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from litestar import Litestar

from mockpay.app import create_litestar
from mockpay.context import Context
from mockpay.postgres.pool import Database
from mockpay.settings import Settings
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Email, Registration, Tenant
from mockpay.tenants.service import Credentials
from mockpay.web.request_log import RequestLog
from mockpay.webhooks.address import AddressGuard
from support.fakes import FakeClock, Receiver
from support.gateway import Gateway


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def context(database: Database, clock: FakeClock, settings: Settings) -> Context:
    return Context(settings=settings, database=database, address_guard=AddressGuard(allow_private=True), clock=clock)


@pytest.fixture
async def credentials(context: Context) -> Credentials:
    return await tenants.register(context, Registration("Test", Email("test@example.com")))


@pytest.fixture
def tenant(credentials: Credentials) -> Tenant:
    return credentials.tenant


@pytest.fixture
def gateway(context: Context, tenant: Tenant, receiver: Receiver) -> Gateway:
    return Gateway(context, tenant, receiver)


@pytest.fixture
async def client(database_url: str, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The whole application, over ASGI."""
    app = create_litestar(settings, database_url, with_worker=False)
    transport = httpx.ASGITransport(RequestLog(app))
    async with _lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://mockpay.test") as opened:
        yield opened


@pytest.fixture
async def api_key(client: httpx.AsyncClient) -> str:
    response = await client.post("/api/auth/register", json={"name": "Api", "email": "api@example.com"})
    assert response.status_code == 201, response.text
    key: str = response.json()["api_key"]
    client.headers["Authorization"] = f"Bearer {key}"
    return key


@asynccontextmanager
async def _lifespan(app: Litestar) -> AsyncIterator[None]:
    """In one task from start to end, as the framework wants it; pytest's fixtures end in another."""
    started, stop = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with app.lifespan():
            started.set()
            await stop.wait()

    task = asyncio.create_task(hold())
    await asyncio.wait([task, asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        stop.set()
        await task
