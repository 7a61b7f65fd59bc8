"""A data folder for each test, of which nothing is left running, and a way to start gateways on it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.background import Background
from tests.support.processes import Gateway, kill_database, running
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
