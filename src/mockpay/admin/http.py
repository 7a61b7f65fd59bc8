"""Every admin route."""

from litestar import Response, get

from mockpay.admin import dead_letters, fraud_rules, metrics, users
from mockpay.admin.access import ADMIN_ERRORS, ADMIN_ROUTE
from mockpay.admin.metrics import MetricsView
from mockpay.exact_json import encode
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import errors as error_answers


@get(
    "/api/admin/metrics",
    summary="A snapshot of the whole server's figures",
    responses=error_answers(*ADMIN_ERRORS),
    **ADMIN_ROUTE,
)
async def read_metrics(context: ContextDependency) -> Response[MetricsView]:
    """Of every tenant, and of one moment. For a monitoring system there is /metrics."""
    return json_response(encode(await metrics.snapshot(context)), 200)


ROUTES = [*dead_letters.ROUTES, *users.ROUTES, *fraud_rules.ROUTES, read_metrics]
