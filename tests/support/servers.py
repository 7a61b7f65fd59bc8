"""PostgreSQL servers for the tests: the embedded one, the system's, and PgBouncer in front of the system's."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from mockpay.postgres.embedded import APPLICATION, OWNER, SUPERUSER, EmbeddedPostgres
from mockpay.postgres.server_process import programs_folder
from mockpay.postgres.service_user import ServiceUser, choose_service_user
from tests.system_packages import find_program

# Nothing here outlives the tests, so nothing need survive a power cut.
FAST = ("fsync=off", "full_page_writes=off", "autovacuum=off", "max_wal_size=256MB")
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 4_000_000_000


class Server(Protocol):
    def url(self, database: str, role: str = APPLICATION) -> str:
        """As clients connect: through the pooler, if there is one."""
        ...

    def direct_url(self, database: str, role: str = SUPERUSER) -> str:
        """Past any pooler."""
        ...

    def address(self) -> tuple[str, int]:
        """Past any pooler: a host, or the folder of a socket; and a port."""
        ...

    def program(self, name: str) -> Path:
        """One of PostgreSQL's, of the server's own version."""
        ...


class EmbeddedServer:
    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres

    def url(self, database: str, role: str = APPLICATION) -> str:
        return self._postgres.url(role, database)

    def direct_url(self, database: str, role: str = SUPERUSER) -> str:
        return self.url(database, role)

    def address(self) -> tuple[str, int]:
        return self._postgres.url(SUPERUSER).split("host=")[1], 5432

    def program(self, name: str) -> Path:
        return programs_folder() / name


class SystemServer:
    """`pooled` sends ordinary connections through PgBouncer."""

    def __init__(self, port: int, pooler_port: int | None) -> None:
        self._port = port
        self._pooler_port = pooler_port

    def url(self, database: str, role: str = APPLICATION) -> str:
        return f"postgresql://{role}@127.0.0.1:{self._pooler_port or self._port}/{database}"

    def direct_url(self, database: str, role: str = SUPERUSER) -> str:
        return f"postgresql://{role}@127.0.0.1:{self._port}/{database}"

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    def program(self, name: str) -> Path:
        return _program(name)


@contextmanager
def start_server(kind: str) -> Iterator[Server]:
    with scratch_folder(in_memory=True) as folder:
        match kind:
            case "embedded":
                with _embedded(folder) as embedded:
                    yield embedded
            case "system":
                with _system(folder) as port:
                    yield SystemServer(port, None)
            case "pgbouncer":
                with _system(folder) as port, pgbouncer(folder, "127.0.0.1", port, free_port()) as pooler_port:
                    yield SystemServer(port, pooler_port)
            case _:
                raise ValueError(kind)


@contextmanager
def scratch_folder(*, in_memory: bool = False) -> Iterator[Path]:
    """One that the user who runs PostgreSQL can enter; pytest's own are closed to it when root runs the tests.

    In memory, where there is room, a database is cloned in a tenth of the time.
    """
    parent = MEMORY if in_memory and _has_room(MEMORY) else None
    folder = Path(tempfile.mkdtemp(prefix="mockpay-test-", dir=parent)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_room(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > MEMORY_BYTES_MIN


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _embedded(folder: Path) -> Iterator[EmbeddedServer]:
    postgres = EmbeddedPostgres(folder / "data", options=FAST)
    postgres.launch()
    postgres.wait_until_ready()
    try:
        yield EmbeddedServer(postgres)
    finally:
        postgres.stop()


@contextmanager
def _system(folder: Path) -> Iterator[int]:
    """A cluster of our own, made with the system's programs."""
    user = choose_service_user()
    user.let_through(folder)
    cluster = folder / "cluster"
    cluster.mkdir(mode=0o700)
    user.own(cluster)
    port = free_port()
    run_as(user, folder, _program("initdb"), "-D", cluster, "-U", "postgres", "--auth=trust", "-E", "UTF8", "-N")
    settings = [*FAST, f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300"]
    options = [word for setting in settings for word in ("-c", setting)]
    with server_process(user, folder, [_program("postgres"), "-D", cluster, *options], port, stop_with=signal.SIGINT):
        _make_roles(user, folder, port)
        yield port


def _make_roles(user: ServiceUser, folder: Path, port: int) -> None:
    """The server accepts connections a moment before it takes commands."""
    deadline = time.monotonic() + 30
    while True:
        try:
            run_as(user, folder, _program("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-qc", f"CREATE ROLE {OWNER} LOGIN; CREATE ROLE {APPLICATION} LOGIN")  # fmt: skip
        except subprocess.CalledProcessError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(error.stderr) from error
            time.sleep(0.05)
        else:
            return


@contextmanager
def pgbouncer(folder: Path, host: str, port: int, pooler_port: int) -> Iterator[int]:
    """In front of the server at that address, or whose socket is in that folder. Leaving ends it at once."""
    user = choose_service_user()
    user.let_through(folder)
    config = folder / "pgbouncer.ini"
    users = folder / "users.txt"
    users.write_text("".join(f'"{role}" ""\n' for role in (OWNER, APPLICATION, SUPERUSER)))
    config.write_text(
        f"""
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {pooler_port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
max_client_conn = 1000
default_pool_size = 20
server_idle_timeout = 5
server_login_retry = 0.1
query_wait_timeout = 3
"""
    )
    with server_process(user, folder, [_program("pgbouncer"), config], pooler_port, stop_with=signal.SIGTERM):
        yield pooler_port


@contextmanager
def server_process(
    user: ServiceUser, folder: Path, command: list[str | Path], port: int, *, stop_with: signal.Signals
) -> Iterator[None]:
    log = (folder / f"{Path(command[0]).name}.log").open("wb")
    with log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **user.process_options()) as process:
        try:
            _wait_for_port(port, process, folder)
            yield
        finally:
            process.send_signal(stop_with)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                logs = "\n".join(path.read_text(errors="replace") for path in folder.glob("*.log"))
                raise RuntimeError(f"no server on port {port}: {logs}") from None
            time.sleep(0.02)
        else:
            return


def _program(name: str) -> Path:
    path = find_program(name)
    assert path, f"{name} is missing; run 'python tests/system_packages.py'"
    return path


def run_as(user: ServiceUser, folder: Path, *command: str | Path) -> None:
    environment = os.environ | {"LC_ALL": "C"}
    subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment, **user.process_options())
