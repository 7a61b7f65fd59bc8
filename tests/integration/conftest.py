"""Fixtures over the application: a context with a fake clock, an HTTP client of the whole app, a tenant."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from litestar import Litestar

from mockpay.app import create_litestar, wrapped
from mockpay.context import Context
from mockpay.postgres.pool import Database
from mockpay.settings import Settings
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Email, Registration, Tenant
from mockpay.tenants.service import Credentials
from mockpay.webhooks.address import AddressGuard
from tests.support.databases import TEMPLATE, new_database
from tests.support.fakes import FakeClock, Receiver
from tests.support.gateway import Gateway, register
from tests.support.servers import Server

# Nothing here speaks TLS, and reading the system's certificates takes longer than most tests.
ADMIN_KEY = "the-admin-key-of-the-tests"
CONNECTIONS_MAX = 1000
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def settings() -> Settings:
    """Without a limit: a test that is about something else may make as many requests as it likes."""
    return Settings(rate_limit_tier="unlimited", admin_key=ADMIN_KEY)


@pytest.fixture
def context(database: Database, clock: FakeClock, settings: Settings) -> Context:
    return Context(
        settings=settings,
        database=database,
        address_guard=AddressGuard(allow_private=True),
        started_at=clock.now(),
        clock=clock,
    )


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
    async with open_client(database_url, settings) as http:
        yield http


@pytest.fixture
async def api_key(client: httpx.AsyncClient) -> str:
    """Of a tenant that the client then acts for."""
    return await register(client)


@pytest.fixture(scope="module")
async def shared_client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A tenant's client for the many tests whose requests are all refused, and so leave nothing behind."""
    async with (
        new_database(server, TEMPLATE) as name,
        open_client(server.url(name), Settings(rate_limit_tier="unlimited")) as http,
    ):
        await register(http)
        yield http


@asynccontextmanager
async def open_client(database_url: str, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_litestar(settings, database_url, with_worker=False)
    transport = httpx.ASGITransport(cast("Any", wrapped(app, CONNECTIONS_MAX)))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=transport, base_url="http://mockpay.test", verify=_NO_TLS, trust_env=False) as http,
    ):
        yield http


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
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
