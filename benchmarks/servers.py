"""What is measured: a database server of its own, and the API on it, as processes."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import Gateway, running

from benchmarks import load
from mockpay.database_access import DatabaseAccess, migrate
from mockpay.postgres.embedded import APPLICATION, OWNER, EmbeddedPostgres


@contextmanager
def embedded(folder: Path) -> Iterator[DatabaseAccess]:
    postgres = EmbeddedPostgres(folder / "data")
    postgres.launch()
    postgres.wait_until_ready()
    try:
        access = DatabaseAccess(postgres.url(APPLICATION), postgres.url(OWNER))
        asyncio.run(migrate(access))
        yield access
    finally:
        postgres.stop()


@contextmanager
def api(folder: Path, access: DatabaseAccess, processes: int, **more: str) -> Iterator[Gateway]:
    settings = {**load.SETTINGS, "MOCKPAY_DATABASE_URL": access.url, "MOCKPAY_WORKERS": str(processes), **more}
    gateway = Gateway(folder / "api.log", "api", **settings)
    with running(gateway):
        yield gateway
        gateway.stop()
