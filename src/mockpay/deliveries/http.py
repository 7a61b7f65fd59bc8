"""Routes of a tenant's webhook deliveries."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post

from mockpay import errors
from mockpay.deliveries import service
from mockpay.exact_json import encode
from mockpay.tenants.http import READ_ERRORS, TENANT_ROUTE, TenantDependency
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import errors as error_answers
from mockpay.web.pages import read_page
from mockpay.web.parameters import (
    CursorParameter,
    LimitParameter,
    QueryReader,
    one_of,
    path_id,
    path_uuid,
    query,
)
from mockpay.webhooks.views import DeliveryStatus, DeliveryView, delivery_view

DeliveryId = Annotated[str, path_uuid()]
DELIVERY_ROUTE = {**TENANT_ROUTE, "tags": ["webhooks"]}


class DeliveryPageView(msgspec.Struct, frozen=True, kw_only=True):
    """`total` is the number of deliveries in this page."""

    data: list[DeliveryView]
    total: int
    has_more: bool
    next_cursor: str | None


@get(
    "/api/webhooks/deliveries",
    summary="List one's webhook deliveries, newest first",
    responses=error_answers(errors.InvalidRequest, *READ_ERRORS),
    **DELIVERY_ROUTE,
)
async def list_deliveries(
    request: Request[Any, Any, Any],
    tenant: TenantDependency,
    context: ContextDependency,
    limit: LimitParameter = None,
    cursor: CursorParameter = None,
    status: Annotated[str | None, query("Only deliveries in this status.", enum=list(DeliveryStatus))] = None,
) -> Response[DeliveryPageView]:
    """Each with every attempt, as far as they are kept: delivered ones are forgotten after a time."""
    reader = QueryReader(request.query_params.multi_items(), ("limit", "cursor", "status"))
    asked = read_page(reader, "deliveries")
    wanted = reader.read("status", one_of(DeliveryStatus), None)
    reader.finish()
    found = await service.page(context, tenant.id, before=asked.before_id, status=wanted, limit=asked.fetched)
    page = asked.cut(found)
    view = DeliveryPageView(
        data=[delivery_view(delivery) for delivery in page.rows],
        total=len(page.rows),
        has_more=page.next_cursor is not None,
        next_cursor=page.next_cursor,
    )
    return json_response(encode(view), 200)


@post(
    "/api/webhooks/deliveries/{delivery_id:str}/replay",
    status_code=202,
    summary="Send a delivery once more",
    responses=error_answers(errors.InvalidRequest, errors.NotFound, errors.NotReplayable, *READ_ERRORS),
    **DELIVERY_ROUTE,
)
async def replay_delivery(
    delivery_id: DeliveryId, tenant: TenantDependency, context: ContextDependency
) -> Response[DeliveryView]:
    """One that is dead or delivered. It is sent at once, to where the payment's webhooks go now, with the same
    `X-MockPay-Delivery` and body, and has all its attempts again.
    """
    replayed = await service.replay(context, tenant.id, path_id("delivery_id", delivery_id))
    return json_response(encode(delivery_view(replayed)), 202)


ROUTES = [list_deliveries, replay_delivery]
