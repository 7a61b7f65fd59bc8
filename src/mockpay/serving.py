"""Run the parts: bind the port, bring up the database, start the server or the worker, take it all down in order.

Heavy imports are inside the functions: they run while the embedded database starts, not before.
"""

import asyncio
import functools
import gc
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mockpay.admin_key import ensure_admin_key
from mockpay.database_access import (
    check_database,
    check_production,
    connection_to,
    database,
    external_database,
    migrate_patiently,
    snapshot,
)
from mockpay.errors import StartupError
from mockpay.limits import LIFT, Allowance, allowances_in_words, velocity_in_force
from mockpay.listening import BACKLOG, allow_many_connections, base_url, bind
from mockpay.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import uvicorn
    from litestar.types import ASGIApp

    from mockpay.audit.checkpoint import Covered, Summary
    from mockpay.audit.verify import Report
    from mockpay.context import Context

GRACEFUL_SHUTDOWN_SECONDS: Final = 10
PARENT_POLL_SECONDS: Final = 0.5
GARBAGE_THRESHOLD: Final = 100_000
"""New objects between two looks for cycles. Requests make few cycles, and many objects."""

_EXAMPLE: Final = """{"name": "Me", "email": "me@example.com"}"""


def serve(settings: Settings) -> None:
    """Everything on one machine, until a signal. Raises StartupError."""
    check_production(settings, needs_admin_key=True)
    with bind(settings) as listeners, stop_requests() as requested, database(settings, requested.is_set) as access:
        migrate_patiently(settings, access)
        admin_key, admin_key_place = ensure_admin_key(settings)
        settings = replace(settings, admin_key=admin_key)
        limits = _limits(settings, access.url)
        announce = functools.partial(_announce, settings, base_url(listeners[0]), admin_key_place, limits)
        if not requested.is_set():
            _run_servers(settings, access.url, listeners, requested, with_worker=True, announce=announce)


def serve_api(settings: Settings) -> None:
    """The API alone, on an external database that is migrated already. Raises StartupError."""
    check_production(settings, needs_admin_key=True)
    url = external_database(settings, "api")
    with bind(settings) as listeners, stop_requests() as requested:
        asyncio.run(check_database(settings, url))
        admin_key_place = "MOCKPAY_ADMIN_KEY" if settings.admin_key else "none: MOCKPAY_ADMIN_KEY is not set"
        limits = _limits(settings, url)
        announce = functools.partial(_announce, settings, base_url(listeners[0]), admin_key_place, limits)
        if not requested.is_set():
            _run_servers(settings, url, listeners, requested, with_worker=False, announce=announce)


async def serve_worker(settings: Settings) -> None:
    """The delivery worker alone, until a signal; then it drains. Raises StartupError."""
    from mockpay.app import open_parts, work

    check_production(settings, needs_admin_key=False)
    url = external_database(settings, "worker")
    await check_database(settings, url)
    async with open_parts(settings, url) as (context, worker):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, worker.stop)
        _serve_worker_metrics(settings, context)
        print("MockPay's delivery worker runs; Ctrl-C stops it.", flush=True)
        await work(context, worker)


def _serve_worker_metrics(settings: Settings, context: "Context") -> None:
    port = settings.worker_metrics_port
    if port == 0:
        return
    try:
        context.telemetry.serve(settings.host, port)
    except OSError as error:
        raise StartupError(
            f"Can't serve the worker's metrics on port {port} of {settings.host}: {error.strerror}; "
            "choose another with MOCKPAY_WORKER_METRICS_PORT."
        ) from error


async def verify_audit(url: str, tell: Callable[[str], object], covered: "Iterable[Covered]" = ()) -> "Report":
    """Check every audit chain of the database. Raises StartupError if it can't be read."""
    from mockpay.audit.verify import verify

    async with snapshot(url) as connection:
        return await verify(connection, tell, covered)


async def sign_audit(url: str, write: Callable[[bytes], object], key: bytes, now: datetime) -> "Summary":
    """Write a checkpoint. Raises StartupError if the trail is broken or can't be read."""
    from mockpay.audit.verify import sign

    async with snapshot(url) as connection:
        return await sign(connection, write, key, now)


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Note SIGINT and SIGTERM, for the start to look at between its steps.

    An exception raised by the signal itself would strike anywhere, also where it is swallowed or turned into another.
    """
    requested = threading.Event()
    before = {number: signal.signal(number, lambda *_: requested.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        # The terminal was closed. Uvicorn knows SIGTERM only.
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_servers(
    settings: Settings,
    url: str,
    listeners: list[socket.socket],
    requested: threading.Event,
    *,
    with_worker: bool,
    announce: Callable[[], None],
) -> None:
    """One server in this process, or several in processes of their own, each with a worker beside it if asked."""
    from multiprocessing import Pipe

    import uvicorn

    from mockpay.faults.protocol import TellingProtocol
    from mockpay.web.connection import Room

    room = Room(allow_many_connections(settings))
    limits = {"request_timeout_seconds": settings.request_timeout_seconds, "room": room}
    reader, started = Pipe(duplex=False)
    build = functools.partial(_build_app, settings, url, os.getpid(), started, with_worker=with_worker)
    config = uvicorn.Config(
        functools.partial(build, connections_max=room.connections_max),
        factory=True,
        workers=settings.workers,
        http=functools.partial(TellingProtocol, **limits),  # type: ignore[arg-type]  # it is only called
        ws="none",
        loop="auto",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        backlog=BACKLOG,
    )
    announcer = threading.Thread(
        target=_announce_when_started, args=(reader, settings.workers, requested, announce), daemon=True
    )
    announcer.start()
    try:
        if settings.workers == 1:
            uvicorn.Server(config).run(sockets=listeners)
        else:
            _run_several(config, listeners)
    finally:
        started.close()
        announcer.join()


def _run_several(config: "uvicorn.Config", listeners: list[socket.socket]) -> None:
    from uvicorn.config import STARTUP_FAILURE

    from mockpay.supervisor import EachWithItsOwn

    with _shared_counters():
        supervisor = EachWithItsOwn(config, sockets=listeners)
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise StartupError("A server process could not start; what it logged above says why.")


@contextmanager
def _shared_counters() -> Iterator[None]:
    """A folder in which the processes that are started now count together, so that each can answer for all."""
    from mockpay.telemetry import MULTIPROCESS_FOLDER

    with tempfile.TemporaryDirectory(prefix="mockpay-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[MULTIPROCESS_FOLDER] = folder
        yield


def _build_app(
    settings: Settings, url: str, parent: int, started: "Connection", *, with_worker: bool, connections_max: int
) -> "ASGIApp":
    """In the process that serves it, which is `parent` itself or a child of it. `started` is told when it does."""
    from mockpay.app import create_app
    from mockpay.logs import configure_logging

    configure_logging(json_lines=settings.is_production, level=settings.log_level)
    if parent != os.getpid():
        threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    tell = functools.partial(_tell_started, started)
    app = create_app(settings, url, with_worker=with_worker, connections_max=connections_max, on_started=tell)
    # What is made until now stays for good. To look through it again and again would take a part of every request.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    return app


def _end_with_parent(parent: int) -> None:
    """A parent that is killed can't tell its servers; they would hold the port, and work on, unsupervised."""
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(PARENT_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _announce_when_started(
    reader: "Connection", servers: int, requested: threading.Event, announce: Callable[[], None]
) -> None:
    """Announce once each of our own servers has said through the pipe that it serves.

    To ask whoever answers at the address could mean to ask another program. If the servers end before, nothing is
    announced.
    """
    with closing(reader), suppress(EOFError):
        for _ in range(servers):
            reader.recv_bytes()
        if requested.is_set():  # in the moment before Uvicorn took the signals over
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            announce()


def _tell_started(started: "Connection") -> None:
    with suppress(OSError):  # a process that takes the place of a dead one: it was announced long ago
        started.send_bytes(b"started")


def _limits(settings: Settings, url: str) -> str:
    """Says which limits hold for a new tenant."""
    if settings.unlimited:
        return f"none: {LIFT} lifts those of requests, and fraud rules that count payments"
    from mockpay.postgres.pool import patiently
    from mockpay.tenants.rate_limit import allowance_of

    async def velocity() -> Allowance | None:
        async with connection_to(url) as connection:
            return await velocity_in_force(connection)

    found = asyncio.run(patiently(velocity, settings.start_patience_seconds))
    return allowances_in_words(allowance_of(settings, settings.rate_limit_tier), found)


def _announce(settings: Settings, base: str, admin_key_place: str, limits: str) -> None:
    where = "MOCKPAY_DATABASE_URL" if settings.database_url else f"embedded PostgreSQL in {settings.data_dir}"
    lines = [
        f"MockPay listens on {base} ({settings.env})",
        f"  database    {where}",
        f"  admin key   {admin_key_place}",
        f"  limits      {limits}",
        f"  reference   {base}/docs",
        f"  try         curl {base}/api/auth/register -H 'Content-Type: application/json' -d '{_EXAMPLE}'",
        "Ctrl-C stops it.",
    ]
    print("\n".join(lines), flush=True)
