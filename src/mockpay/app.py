"""The composition root: settings in, an application out. The one place that knows every part."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp

from mockpay import __version__, errors
from mockpay.context import Context
from mockpay.errors import DatabaseUnavailable
from mockpay.exact_json import encode
from mockpay.payments import http as payments
from mockpay.postgres.migrate import bundled_migrations, is_current
from mockpay.postgres.pool import open_database
from mockpay.settings import Settings
from mockpay.tenants import http as tenants
from mockpay.types import SystemClock
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.error_handler import handle_error
from mockpay.web.openapi import OwnTypes
from mockpay.web.openapi import errors as error_answers
from mockpay.web.request_log import RequestLog
from mockpay.webhooks.address import AddressGuard
from mockpay.webhooks.worker import Worker

BODY_BYTES_MAX = 256 * 1024


def create_app(settings: Settings, database_url: str, *, with_worker: bool) -> ASGIApp:
    """The API, and beside it a delivery worker if asked for. The database is opened when the application starts."""
    return RequestLog(create_litestar(settings, database_url, with_worker=with_worker))


def create_litestar(settings: Settings, database_url: str, *, with_worker: bool) -> Litestar:
    """The application inside the request log."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with open_parts(settings, database_url) as (context, worker):
            app.state.context = context
            async with running(worker) if with_worker else nullcontext():
                yield

    return Litestar(
        [tenants.register, tenants.me, *payments.ROUTES, health, ready, openapi_document],
        dependencies={
            "context": Provide(provide_context, sync_to_thread=False),
            "tenant": Provide(tenants.current_tenant, sync_to_thread=False),
        },
        exception_handlers={Exception: handle_error},
        lifespan=[lifespan],
        request_max_body_size=BODY_BYTES_MAX,
        openapi_config=_openapi(),
        plugins=[OwnTypes()],
        logging_config=None,
    )


@asynccontextmanager
async def open_parts(settings: Settings, database_url: str) -> AsyncIterator[tuple[Context, Worker]]:
    """What requests need, and a worker over the same database that nobody runs yet."""
    database = await open_database(database_url, settings.database_connections)
    guard = AddressGuard(allow_private=not settings.is_production)
    clock = SystemClock()
    worker = Worker(settings=settings, database=database, guard=guard, clock=clock)
    context = Context(settings=settings, database=database, address_guard=guard, clock=clock, wake_worker=worker.wake)
    try:
        yield context, worker
    finally:
        await database.close()


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[None]:
    """The worker beside the API. Leaving drains it."""
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await task


def provide_context(state: State) -> Context:
    context: Context = state.context
    return context


@get("/health", tags=["operations"], summary="Is the process up?")
async def health() -> Response[dict[str, str]]:
    return json_response(encode({"status": "ok", "version": __version__}), 200)


@get(
    "/ready",
    tags=["operations"],
    summary="Is the database reachable, and its schema current?",
    responses=error_answers(errors.DatabaseUnavailable),
)
async def ready(context: ContextDependency) -> Response[dict[str, str]]:
    async with context.database.connection() as connection:
        current = await is_current(connection, bundled_migrations())
    if not current:
        raise DatabaseUnavailable("The database is not migrated to this version; run 'mockpay migrate'.")
    return json_response(encode({"status": "ready"}), 200)


@get("/openapi.json", tags=["operations"], summary="This document")
async def openapi_document(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    return json_response(encode(request.app.openapi_schema.to_schema()), 200)


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="MockPay",
        version=__version__,
        description="A payment gateway simulator: real states, real webhooks, faults on demand, no money.",
        path="/docs",
        render_plugins=[SwaggerRenderPlugin(path="/")],
        components=Components(
            security_schemes={
                "apiKey": SecurityScheme(
                    type="http", scheme="bearer", description="The api_key of POST /api/auth/register."
                )
            }
        ),
    )
