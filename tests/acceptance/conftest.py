"""A data folder for each test, of which nothing is left running, and a way to start gateways on it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.processes import Gateway, database_processes, running
from tests.support.servers import scratch_folder

Start = Callable[..., Gateway]


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder() as made:
        yield made


@pytest.fixture
def data_dir(folder: Path) -> Iterator[Path]:
    path = folder / "data"
    yield path
    for process in database_processes(path):
        process.kill()


@pytest.fixture
def start(folder: Path, data_dir: Path) -> Iterator[Start]:
    """`start("serve", MOCKPAY_X="...")`. The data folder is the test's own."""
    with ExitStack() as stack:

        def start_one(command: str = "serve", **settings: str) -> Gateway:
            gateway = Gateway(folder / "gateway.log", command, **{"MOCKPAY_DATA_DIR": str(data_dir)} | settings)
            stack.enter_context(running(gateway))
            return gateway

        yield start_one
