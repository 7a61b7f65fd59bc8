"""The sockets that the servers listen on, taken before anything slow is started."""

import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from mockpay.errors import StartupError
from mockpay.settings import Settings

Address = tuple[int, int, int, Any]
"""Family, kind, protocol, and the address itself."""


BACKLOG: Final = 2048
"""Connections that wait to be taken: all that come while the rest of the start goes on, and bursts afterwards."""
FILES_KEPT_FREE: Final = 64
_LOCK_PATIENCE_SECONDS: Final = 5.0
_LOCK_POLL_SECONDS: Final = 0.002
OPEN_FILES_MAX: Final = 65_536
"""As many as the system allows may be a thousand million, and some programs go through all of them."""


@contextmanager
def bind(settings: Settings) -> Iterator[list[socket.socket]]:
    """One for each process, all of one address, so that the system shares the connections out evenly.

    Where it does not do so, and for one process, it is a single one. They listen already: two that are only bound may
    share a port, and both starts would go on. Raises StartupError.
    """
    with ExitStack() as opened:
        family, kind, protocol, address = _resolve(settings)
        if settings.workers == 1 or sys.platform != "linux":
            listener = opened.enter_context(_bound(settings, (family, kind, protocol, address), shared=False))
            _listen(settings, [listener])
            yield [listener]
            return
        with _alone_on(settings):
            # Alone at first: a port that others listen on in the same way would seem to be free.
            with _bound(settings, (family, kind, protocol, address), shared=False) as first:
                address = first.getsockname()
            listeners = [
                opened.enter_context(_bound(settings, (family, kind, protocol, address), shared=True))
                for _ in range(settings.workers)
            ]
            _listen(settings, listeners)
        yield listeners


def allow_many_connections(settings: Settings) -> int:
    """Each is an open file, and most systems give a program 1024 of these unless it asks for more.

    How many there may be in a process: some files are left for the database, webhooks, and whatever else is opened.
    """
    others = settings.database_connections + settings.webhook_concurrency + FILES_KEPT_FREE
    allowed = _allow_open_files()
    return max(allowed - others, allowed // 2)


def _allow_open_files() -> int:
    if sys.platform == "win32":
        return OPEN_FILES_MAX
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with suppress(OSError, ValueError):  # a system that allows less than it says; then it stays as it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN_FILES_MAX if soft == resource.RLIM_INFINITY else min(soft, OPEN_FILES_MAX)


def base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - shown, not listened on
    return f"http://{shown}:{port}"


def _resolve(settings: Settings) -> Address:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise StartupError(
            f"MOCKPAY_HOST '{settings.host}' is no address of this machine: {error.strerror}."
        ) from error
    return family, kind, protocol, address


@contextmanager
def _alone_on(settings: Settings) -> Iterator[None]:
    """While this is open no other start of this user takes sockets of this port that could be shared with it.

    Between the look whether the port is free and the moment when it is listened on, another start could look as well.
    An abstract socket is where ports are, in the same network namespace, and is gone with its process.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        pause = threading.Event()
        while True:
            try:
                lock.bind(f"\0mockpay-{os.geteuid()}-port-{settings.port}")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    break  # a system that forbids such sockets: better without the lock than not at all
                if time.monotonic() > deadline:
                    raise StartupError(_failure(settings, error)) from error
                pause.wait(_LOCK_POLL_SECONDS)
            else:
                break
        yield


@contextmanager
def _bound(settings: Settings, address: Address, *, shared: bool) -> Iterator[socket.socket]:
    with socket.socket(*address[:3]) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind(address[3])
        except OSError as error:
            raise StartupError(_failure(settings, error)) from error
        yield listener


def _listen(settings: Settings, listeners: list[socket.socket]) -> None:
    """Here it comes out who was first, of two that bound the same port. Raises StartupError."""
    for listener in listeners:
        try:
            listener.listen(BACKLOG)
        except OSError as error:
            raise StartupError(_failure(settings, error)) from error


def _failure(settings: Settings, error: OSError) -> str:
    where = f"port {settings.port} on {settings.host}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"Can't listen: {where} is taken; stop what uses it, or choose another with MOCKPAY_PORT."
        case errno.EACCES:
            return f"Can't listen: {where} needs privileges; choose one above 1023 with MOCKPAY_PORT."
        case _:
            return f"Can't listen on {where}: {error.strerror}; check MOCKPAY_HOST and MOCKPAY_PORT."
