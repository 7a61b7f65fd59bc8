"""A data folder for each test, of which nothing is left running, and a way to start gateways on it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.background import Background
from tests.support.processes import Gateway, Program, kill_database, running
from tests.support.servers import scratch_folder

Start = Callable[..., Gateway]


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder(in_memory=True) as made:
        yield made


@pytest.fixture
def data_dir(folder: Path) -> Iterator[Path]:
    path = folder / "data"
    yield path
    kill_database(path)


@pytest.fixture(scope="session")
def used_data_dir() -> Iterator[Path]:
    """A data folder that a gateway made, and was stopped on. Copying it is faster than making another."""
    with scratch_folder() as made:
        gateway = Gateway(made / "gateway.log", MOCKPAY_DATA_DIR=str(made / "data"))
        with running(gateway):
            assert gateway.stop() == 0
        yield made / "data"


@pytest.fixture
def start(folder: Path, data_dir: Path, used_data_dir: Path) -> Iterator[Start]:
    """`start("serve", MOCKPAY_X="...")`. The data folder is the test's own; one that is named is taken as it is."""
    with ExitStack() as stack:

        def start_one(command: str = "serve", **settings: str) -> Gateway:
            if "MOCKPAY_DATA_DIR" not in settings and not data_dir.exists():
                subprocess.run(["cp", "-a", used_data_dir, data_dir], check=True)
            gateway = Gateway(folder / "gateway.log", command, **{"MOCKPAY_DATA_DIR": str(data_dir)} | settings)
            stack.enter_context(running(gateway))
            return gateway

        yield start_one


@pytest.fixture
def listen() -> Iterator[Callable[..., Background]]:
    opened: list[Background] = []

    def open_one(port: int = 0) -> Background:
        opened.append(Background(port))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def gateways(folder: Path, database_url: str) -> Iterator[list[Gateway]]:
    """Two API processes on one external PostgreSQL; two workers run beside them."""
    settings = {
        "MOCKPAY_DATABASE_URL": database_url,
        "MOCKPAY_ADMIN_KEY": "the-admin-key-of-the-tests",
        "MOCKPAY_RATE_LIMIT_HIGH": "50",
        "MOCKPAY_RATE_LIMIT_STANDARD": "1000000",
        "MOCKPAY_WEBHOOK_BACKOFF_SECONDS": "0.1",
        "MOCKPAY_LOG_LEVEL": "warning",
    }
    with ExitStack() as stack:
        workers = [Program(folder / f"worker-{number}.log", "worker", **settings) for number in range(2)]
        found = [Gateway(folder / f"api-{number}.log", "api", **settings) for number in range(2)]
        for program in (*workers, *found):
            stack.enter_context(running(program))
        for worker in workers:
            worker.wait_for_output("delivery worker runs")
        tenant = found[0].register()
        found[1].act_for(tenant)
        yield found
