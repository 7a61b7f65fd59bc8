"""A second server that follows the tests' own, and is read-only until it is promoted."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mockpay.postgres.embedded import APPLICATION, SUPERUSER
from mockpay.postgres.service_user import choose_service_user
from tests.support.servers import FAST, Server, free_port, run_as, server_process

# No fewer connections than the server that it follows has, or it would not start.
OPTIONS = (*FAST, "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300")


class Standby:
    """Has all databases of `followed`, as they are. Ends with it, if nothing stopped it before."""

    def __init__(self, folder: Path, followed: Server) -> None:
        self._folder = folder
        self._user = choose_service_user()
        self._user.let_through(folder)
        self._cluster = folder / "standby"
        self._cluster.mkdir(mode=0o700)
        self._user.own(self._cluster)
        self._program = followed.program("postgres")
        self._port = free_port()
        self._running = ExitStack()
        host, port = followed.address()
        run_as(
            self._user, folder, followed.program("pg_basebackup"), "--host", host, "--port", str(port),
            "--username", SUPERUSER, "--pgdata", self._cluster, "--write-recovery-conf", "--checkpoint=fast", "--no-sync",
        )  # fmt: skip

    def url(self, database: str, role: str = APPLICATION) -> str:
        return f"postgresql://{role}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        options = [word for option in (*OPTIONS, f"port={self._port}") for word in ("-c", option)]
        command: list[str | Path] = [self._program, "-D", self._cluster, *options]
        process = server_process(self._user, self._folder, command, self._port, stop_with=signal.SIGINT)
        self._running.enter_context(process)

    def stop(self) -> None:
        """At once: whoever is connected loses the connection."""
        self._running.close()


@contextmanager
def open_standby(folder: Path, followed: Server) -> Iterator[Standby]:
    standby = Standby(folder, followed)
    standby.start()
    try:
        yield standby
    finally:
        standby.stop()
