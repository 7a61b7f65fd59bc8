"""The composition root: settings in, an application out. The one place that knows every part."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp

from mockpay import __version__, operations
from mockpay.admin import http as admin
from mockpay.context import Context
from mockpay.deliveries import http as deliveries
from mockpay.errors import DatabaseUnavailable
from mockpay.faults import http as faults
from mockpay.faults.budget import HoldBudget
from mockpay.faults.inject import Faults
from mockpay.housekeeping import keep_house
from mockpay.payments import catalogue
from mockpay.payments import http as payments
from mockpay.payments.direct import DIRECT_ROUTES
from mockpay.payments.scheduler import settle_outcomes
from mockpay.postgres.pool import open_database, patiently
from mockpay.scenarios import http as scenarios
from mockpay.settings import Settings, words
from mockpay.telemetry import Telemetry
from mockpay.tenants import http as tenants
from mockpay.tenants.gate import Gate, admitted_tenant, refuse
from mockpay.timeline import http as timeline
from mockpay.timeline.recorder import Recorder
from mockpay.types import SystemClock
from mockpay.web import reference, start_page
from mockpay.web.asgi import BODY_BYTES_MAX
from mockpay.web.direct import DirectRoutes
from mockpay.web.error_handler import handle_error
from mockpay.web.openapi import OwnTypes
from mockpay.web.options import name_every_method
from mockpay.web.request_log import RequestLog
from mockpay.webhooks.address import AddressGuard
from mockpay.webhooks.resolver import Lookups
from mockpay.webhooks.worker import Worker

EXPOSED_HEADERS = [
    "Allow",
    "Idempotent-Replayed",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "X-Request-Id",
]
"""Which a web page of another origin may read."""


def create_app(
    settings: Settings,
    database_url: str,
    *,
    with_worker: bool,
    connections_max: int,
    on_started: Callable[[], None] = lambda: None,
) -> ASGIApp:
    """The API, and beside it a delivery worker if asked for. The database is opened when the application starts.

    `connections_max` is how many clients this process may have. `on_started` is called once it is ready for requests.
    """
    app = create_litestar(settings, database_url, with_worker=with_worker, on_started=on_started)
    return wrapped(app, connections_max)


def wrapped(app: Litestar, connections_max: int) -> ASGIApp:
    """The application inside the layers that see every request, also those that lead nowhere."""

    def context_of() -> Context:
        context: Context = app.state.context
        return context

    direct = DirectRoutes(app, context_of, admitted_tenant, DIRECT_ROUTES)
    seen = Recorder(Faults(direct, context_of, HoldBudget(connections_max)), context_of)
    return RequestLog(Gate(seen, context_of), lambda: context_of().telemetry)


def create_litestar(
    settings: Settings, database_url: str, *, with_worker: bool, on_started: Callable[[], None] = lambda: None
) -> Litestar:
    """The application alone. It needs `wrapped` around it."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with open_parts(settings, database_url) as (context, worker):
            app.state.context = context
            async with recording(context), running(context, worker) if with_worker else nullcontext():
                on_started()
                yield

    parts = (
        tenants,
        payments,
        catalogue,
        deliveries,
        faults,
        scenarios,
        timeline,
        admin,
        operations,
        reference,
        start_page,
    )
    return Litestar(
        [route for part in parts for route in part.ROUTES],
        dependencies={
            "context": Provide(provide_context, sync_to_thread=False),
            "tenant": Provide(tenants.current_tenant, sync_to_thread=False),
        },
        guards=[refuse],
        before_send=[name_every_method],
        exception_handlers={Exception: handle_error},
        lifespan=[lifespan],
        request_max_body_size=BODY_BYTES_MAX,
        cors_config=_cors(settings),
        openapi_config=_openapi(),
        plugins=[OwnTypes()],
        logging_config=None,
    )


@asynccontextmanager
async def open_parts(settings: Settings, database_url: str) -> AsyncIterator[tuple[Context, Worker]]:
    """What requests need, and a worker over the same database that nobody runs yet."""
    opened = functools.partial(open_database, database_url, settings.database_connections)
    database = await patiently(opened, settings.start_patience_seconds)
    guard = AddressGuard(allow_private=not settings.is_production, resolve=Lookups().addresses)
    clock = SystemClock()
    telemetry = Telemetry()
    worker = Worker(
        settings=settings, database=database, guard=guard, clock=clock, telemetry=telemetry, lookups=Lookups()
    )
    context = Context(
        settings=settings,
        database=database,
        address_guard=guard,
        started_at=clock.now(),
        clock=clock,
        telemetry=telemetry,
        wake_worker=worker.wake,
    )
    try:
        yield context, worker
    finally:
        await database.close()


@asynccontextmanager
async def recording(context: Context) -> AsyncIterator[None]:
    """What requests leave for the timeline is written meanwhile, and the rest of it at the end."""
    task = asyncio.create_task(context.journal.keep_writing(context.database))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(DatabaseUnavailable):
            await context.journal.write(context.database)


@asynccontextmanager
async def running(context: Context, worker: Worker) -> AsyncIterator[None]:
    """The worker beside the API. Leaving drains it."""
    task = asyncio.create_task(work(context, worker))
    try:
        yield
    finally:
        worker.stop()
        await task


async def work(context: Context, worker: Worker) -> None:
    """Deliver until the worker is stopped; meanwhile settle outcomes that are due, and keep the house clean."""
    beside = [asyncio.create_task(task(context)) for task in (settle_outcomes, keep_house)]
    try:
        await worker.run()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


def provide_context(state: State) -> Context:
    context: Context = state.context
    return context


def _cors(settings: Settings) -> CORSConfig | None:
    origins = words(settings.cors_origins)
    if not origins:
        return None
    return CORSConfig(allow_origins=origins, expose_headers=EXPOSED_HEADERS)


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="MockPay",
        version=__version__,
        description=(
            "A payment gateway simulator: real states, real webhooks, faults on demand, no money. "
            "Any request of a tenant may ask for a fault with the header X-MockPay-Fault."
        ),
        operation_id_creator=lambda handler, _method, _path: handler.handler_name,
        openapi_router=reference.NoPages("/docs", route_handlers=[]),
        components=Components(
            security_schemes={
                "apiKey": SecurityScheme(
                    type="http", scheme="bearer", description="The api_key of POST /api/auth/register."
                ),
                "adminKey": SecurityScheme(
                    type="http", scheme="bearer", description="MOCKPAY_ADMIN_KEY, or what the first start made."
                ),
            }
        ),
    )
