"""Fixtures: one server for the session, a migrated template database, and a clone of it for each test."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from mockpay.logs import configure_logging
from mockpay.postgres.migrate import bundled_migrations, migrate
from mockpay.postgres.pool import Database, connect, open_database
from support.fakes import FakeClock, Receiver, open_receiver
from support.servers import Server, start_server

TEMPLATE = "mockpay_template"


def pytest_configure() -> None:
    configure_logging(json_lines=False, level="error")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server", default="embedded", choices=["embedded", "system", "pgbouncer"])


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with start_server(request.config.getoption("--server")) as started:
        asyncio.run(_make_template(started))
        yield started


@pytest.fixture
async def empty_database_url(server: Server) -> AsyncIterator[str]:
    """A database of MockPay's own role, with nothing in it."""
    async with _new_database(server, "template0") as name:
        yield server.url(name)


@pytest.fixture
async def database_name(server: Server) -> AsyncIterator[str]:
    """A migrated database, new for this test."""
    async with _new_database(server, TEMPLATE) as name:
        yield name


@pytest.fixture
def database_url(server: Server, database_name: str) -> str:
    return server.url(database_name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await open_database(database_url, 16)
    yield opened
    await opened.close()


@pytest.fixture
async def superuser(server: Server, database_name: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A superuser's connection to the test's database, past any pooler."""
    connection = await asyncpg.connect(server.direct_url(database_name))
    yield connection
    await connection.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


class _new_database:  # noqa: N801
    """`async with _new_database(server, template) as name`."""

    def __init__(self, server: Server, template: str) -> None:
        self._server = server
        self._template = template
        self._name = f"test_{uuid.uuid4().hex}"

    async def __aenter__(self) -> str:
        await _as_superuser(self._server, f"CREATE DATABASE {self._name} TEMPLATE {self._template} OWNER mockpay")
        return self._name

    async def __aexit__(self, *_: object) -> None:
        await _as_superuser(self._server, f"DROP DATABASE {self._name} WITH (FORCE)")


async def _make_template(server: Server) -> None:
    await _as_superuser(server, f"CREATE DATABASE {TEMPLATE} OWNER mockpay")
    # Past the pooler, which would keep a connection that stands in the way of cloning.
    connection = await connect(server.direct_url(TEMPLATE))
    await connection.execute("SET SESSION AUTHORIZATION mockpay")
    await migrate(connection, bundled_migrations())
    await connection.close()


async def _as_superuser(server: Server, statement: str) -> None:
    connection = await asyncpg.connect(server.direct_url("postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
