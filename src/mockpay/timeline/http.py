"""Routes of the timeline."""

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.openapi.spec.enums import OpenAPIType

from mockpay import errors
from mockpay.context import Context
from mockpay.exact_json import encode
from mockpay.tenants.http import READ_ERRORS, TENANT_ROUTE, TenantDependency
from mockpay.tenants.model import Tenant
from mockpay.timeline import service
from mockpay.timeline.service import TimelineQuery
from mockpay.timeline.views import EntryView
from mockpay.types import parse_time
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import errors as error_answers
from mockpay.web.pages import read_page
from mockpay.web.parameters import LIMIT_MAX, CursorParameter, QueryReader, path_id, path_uuid, query

TIMELINE_ROUTE: Final[dict[str, Any]] = {**TENANT_ROUTE, "tags": ["timeline"]}

AnyRequest = Request[Any, Any, Any]
PaymentId = Annotated[str, path_uuid()]
Limit = Annotated[
    str | None, query("How many at most; 100 if left out.", type=OpenAPIType.INTEGER, minimum=1, maximum=LIMIT_MAX)
]
From = Annotated[str | None, query("RFC 3339, inclusive.", format="date-time")]
To = Annotated[str | None, query("RFC 3339, exclusive.", format="date-time")]


class TimelineView(msgspec.Struct, frozen=True, kw_only=True):
    """`total` is the number of entries in this page."""

    data: list[EntryView]
    total: int
    has_more: bool
    next_cursor: str | None


@get(
    "/api/timeline",
    summary="What happened, oldest first",
    responses=error_answers(errors.InvalidRequest, *READ_ERRORS),
    **TIMELINE_ROUTE,
)
async def list_timeline(
    request: AnyRequest,
    tenant: TenantDependency,
    context: ContextDependency,
    limit: Limit = None,
    cursor: CursorParameter = None,
    at_from: From = None,
    at_to: To = None,
) -> Response[TimelineView]:
    """Requests, changes of payments, webhooks and their attempts, each with the fault that it suffered."""
    return await _answer(request, tenant, context, None)


@get(
    "/api/payments/{payment_id:str}/timeline",
    summary="What happened to a payment, oldest first",
    responses=error_answers(errors.InvalidRequest, errors.NotFound, *READ_ERRORS),
    **TIMELINE_ROUTE,
)
async def payment_timeline(
    request: AnyRequest,
    payment_id: PaymentId,
    tenant: TenantDependency,
    context: ContextDependency,
    limit: Limit = None,
    cursor: CursorParameter = None,
    at_from: From = None,
    at_to: To = None,
) -> Response[TimelineView]:
    """The requests are those that name it, and those that had the idempotency key by which it was made."""
    return await _answer(request, tenant, context, path_id("payment_id", payment_id))


ROUTES = [list_timeline, payment_timeline]


async def _answer(
    request: AnyRequest, tenant: Tenant, context: Context, payment_id: UUID | None
) -> Response[TimelineView]:
    reader = QueryReader(request.query_params.multi_items(), ("limit", "cursor", "at_from", "at_to"))
    asked = read_page(reader, "timeline", LIMIT_MAX)
    wanted = TimelineQuery(
        after=asked.after,
        at_from=reader.read("at_from", parse_time, None),
        at_to=reader.read("at_to", parse_time, None),
        limit=asked.fetched,
    )
    reader.finish()
    page = asked.cut(await service.page(context, tenant, payment_id, wanted))
    view = TimelineView(
        data=[entry.view for entry in page.rows],
        total=len(page.rows),
        has_more=page.next_cursor is not None,
        next_cursor=page.next_cursor,
    )
    return json_response(encode(view), 200)
