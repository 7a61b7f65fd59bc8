"""Two starts on one port, and other programs on it: only who serves there says so."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.processes import Program, database_processes, kill_database, running, wait_until
from tests.support.servers import Server, free_port

ANNOUNCED = "MockPay listens on"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_of_two_starts_at_the_same_moment_one_serves_and_the_other_says_why(folder: Path, workers: str) -> None:
    settings = {"MOCKPAY_PORT": str(free_port()), "MOCKPAY_WORKERS": workers}
    with ExitStack() as stack:
        both = [
            Program(folder / f"{name}.log", "serve", MOCKPAY_DATA_DIR=str(folder / name), **settings)
            for name in ("one", "other")
        ]
        for program in both:
            stack.enter_context(running(program))
        stack.callback(kill_database, folder / "one")
        stack.callback(kill_database, folder / "other")
        wait_until(lambda: all(program.process.poll() is not None or ANNOUNCED in program.output for program in both))
        [serving] = [program for program in both if program.process.poll() is None]
        [refused] = [program for program in both if program.process.poll() is not None]
        assert refused.process.returncode == 1
        assert refused.output.startswith(
            f"mockpay: Can't listen: port {settings['MOCKPAY_PORT']} on 127.0.0.1 is taken;"
        )
        assert refused.output.count("\n") == 1
        assert serving.output.count(ANNOUNCED) == 1
        health = httpx.get(f"http://127.0.0.1:{settings['MOCKPAY_PORT']}/health", trust_env=False)
        assert health.json()["status"] == "ok"
        assert serving.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_on_which_another_program_answers(folder: Path, data_dir: Path, workers: str) -> None:
    with another_program(free_port()) as port:
        program = Program(
            folder / "log", "serve", MOCKPAY_DATA_DIR=str(data_dir), MOCKPAY_PORT=str(port), MOCKPAY_WORKERS=workers
        )
        with running(program):
            assert program.process.wait(30) == 1
    assert "is taken" in program.output
    assert ANNOUNCED not in program.output
    assert database_processes(data_dir) == []


def test_a_start_that_fails_announces_nothing_whoever_answers_on_its_port(
    folder: Path, server: Server, database_name: str
) -> None:
    """The other program shares the port, as one of the same user may. The database is lost after our first look at it.

    Without limits to announce there is one such look.
    """
    port = free_port()
    with ExitStack() as stack:
        database = OnlyTheFirst(server.address())
        stack.callback(database.close)
        program = Program(
            folder / "log", "api", MOCKPAY_PORT=str(port), MOCKPAY_WORKERS="2", MOCKPAY_UNLIMITED="true",
            MOCKPAY_DATABASE_URL=f"postgresql://mockpay_application@127.0.0.1:{database.port}/{database_name}",
        )  # fmt: skip
        stack.enter_context(running(program))
        wait_until(lambda: database.connections >= 1)
        stack.enter_context(another_program(port))
        wait_until(lambda: database.connections >= 2)
        database.end_the_others.set()
        assert program.process.wait(60) == 1
    assert "A server process could not start" in program.output
    assert ANNOUNCED not in program.output


@contextmanager
def another_program(port: int) -> Iterator[int]:
    """It answers 200 to whatever it is asked, and shares the port with whoever allows that."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Other(http.server.ThreadingHTTPServer):
        def server_bind(self) -> None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            super().server_bind()

    with Other(("127.0.0.1", port), Handler) as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield port
        finally:
            other.shutdown()
            thread.join()


class OnlyTheFirst:
    """A way to a database that passes the first connection on. The others hang until they are ended."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.end_the_others = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.end_the_others.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self.connections += 1
                target = self._pass_on if self.connections == 1 else self._hang
                threading.Thread(target=target, args=(client,), daemon=True).start()

    def _hang(self, client: socket.socket) -> None:
        with client:
            self.end_the_others.wait()

    def _pass_on(self, client: socket.socket) -> None:
        folder, port = self._address
        with client, socket.socket(socket.AF_UNIX) as database:
            database.connect(f"{folder}/.s.PGSQL.{port}")
            back = threading.Thread(target=_copy, args=(database, client), daemon=True)
            back.start()
            _copy(client, database)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
