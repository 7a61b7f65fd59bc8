"""Fixtures: one server for the session, a migrated template database, and a clone of it for each test."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from mockpay.logs import configure_logging
from mockpay.postgres.embedded import OWNER
from mockpay.postgres.pool import Connection, Database, connect, open_database
from tests.support.databases import TEMPLATE, make_template, new_database, uneven_rollups
from tests.support.fakes import FakeClock, Receiver, open_receiver
from tests.support.servers import Server, start_server

THOROUGH_EXAMPLES = 3000


def pytest_configure() -> None:
    configure_logging(json_lines=False, level="error")
    settings.register_profile("untimed", deadline=None)  # how long an example takes is the machine's affair
    settings.register_profile("thorough", deadline=None, max_examples=THOROUGH_EXAMPLES)
    settings.load_profile("untimed")  # unless --hypothesis-profile names the other


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server", default="embedded", choices=["embedded", "system", "pgbouncer"])


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with start_server(request.config.getoption("--server")) as started:
        asyncio.run(make_template(started))
        yield started


@pytest.fixture
async def empty_database_url(server: Server) -> AsyncIterator[str]:
    """As the owner, of a database with nothing in it."""
    async with new_database(server, "template0") as name:
        yield server.url(name, OWNER)


@pytest.fixture
async def database_name(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A migrated database, new for this test. Whatever the test does, the figures of the rollups are true at its end."""
    async with new_database(server, TEMPLATE) as name:
        yield name
        if "tampering" not in request.keywords:
            assert await uneven_rollups(server, name) == []


@pytest.fixture
def database_url(server: Server, database_name: str) -> str:
    """As the application, which does not own the tables."""
    return server.url(database_name)


@pytest.fixture
def owner_url(server: Server, database_name: str) -> str:
    return server.url(database_name, OWNER)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await open_database(database_url, 16)
    yield opened
    await opened.close()


@pytest.fixture
async def superuser(server: Server, database_name: str) -> AsyncIterator[Connection]:
    """A superuser's connection to the test's database, past any pooler."""
    connection = await connect(server.direct_url(database_name))
    yield connection
    await connection.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened
