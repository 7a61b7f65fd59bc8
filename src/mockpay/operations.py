"""Routes for whoever runs the server: is it up, is it ready, what does it do."""

import msgspec
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec
from prometheus_client.metrics_core import Metric

from mockpay import __version__, errors
from mockpay.context import Context
from mockpay.errors import DatabaseUnavailable
from mockpay.exact_json import encode
from mockpay.payments import outcome_store
from mockpay.postgres.migrate import bundled_migrations, is_current
from mockpay.postgres.pool import check_writable
from mockpay.telemetry import CONTENT_TYPE, gauge
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import errors as error_answers
from mockpay.webhooks import log


class HealthView(msgspec.Struct, frozen=True):
    status: str
    version: str


class ReadyView(msgspec.Struct, frozen=True):
    status: str


@get("/health", tags=["operations"], summary="Is the process up?")
async def health() -> Response[HealthView]:
    """Asks nothing of the database."""
    return json_response(encode(HealthView("ok", __version__)), 200)


@get(
    "/ready",
    tags=["operations"],
    summary="Is the database reachable and writable, and its schema current?",
    responses=error_answers(errors.DatabaseUnavailable),
)
async def ready(context: ContextDependency) -> Response[ReadyView]:
    async with context.database.connection() as connection:
        current = await is_current(connection, bundled_migrations())
        await check_writable(connection)
    if not current:
        raise DatabaseUnavailable("The database is not migrated to this version; run 'mockpay migrate'.")
    return json_response(encode(ReadyView("ready")), 200)


@get(
    "/metrics",
    tags=["operations"],
    summary="Figures for a monitoring system, in Prometheus' text format",
    responses={200: ResponseSpec(str, media_type="text/plain", description="Prometheus text format")},
)
async def metrics(context: ContextDependency) -> Response[bytes]:
    """Answers without the database too: mockpay_database_up is then 0, and what it would tell is left out."""
    gauges = [*_process_gauges(context), *await _queue_gauges(context)]
    return Response(context.telemetry.text(gauges), media_type=CONTENT_TYPE)


ROUTES = [health, ready, metrics]


def _process_gauges(context: Context) -> list[Metric]:
    usage = context.database.usage()
    return [
        gauge("mockpay_info", "The version that runs.", {__version__: 1}, "version"),
        gauge(
            "mockpay_database_connections",
            "Connections of the process that answered, by what they do.",
            {"in_use": usage.in_use, "idle": usage.idle},
            "state",
        ),
        gauge("mockpay_database_connections_limit", "The most connections of that process.", {"": usage.limit}),
    ]


async def _queue_gauges(context: Context) -> list[Metric]:
    try:
        async with context.database.connection() as connection:
            queue = await log.queue_state(connection)
            put_off = await outcome_store.count_put_off(connection)
    except DatabaseUnavailable:
        return [_database_up(0)]
    return [
        _database_up(1),
        gauge("mockpay_webhook_queue_depth", "Webhooks that are not delivered yet.", {"": queue.pending}),
        gauge(
            "mockpay_outcomes_put_off",
            "Planned outcomes that could not be settled when they were due, and are tried again later.",
            {"": put_off},
        ),
        gauge("mockpay_webhook_dead_letters", "Webhooks that were given up.", {"": queue.dead}),
        gauge(
            "mockpay_webhook_oldest_pending_seconds",
            "The age of the event that waits longest; 0 if none does.",
            {"": queue.oldest_pending_seconds},
        ),
    ]


def _database_up(value: int) -> Metric:
    return gauge("mockpay_database_up", "Whether the database answered this scrape.", {"": value})
