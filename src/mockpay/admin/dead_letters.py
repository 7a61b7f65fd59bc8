"""Routes of dead letters: webhooks that were given up, of all tenants."""

from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.params import JSONBody

from mockpay import errors
from mockpay.admin.access import ADMIN_ERRORS, ADMIN_ROUTE
from mockpay.deliveries import service
from mockpay.exact_json import decode, encode
from mockpay.tenants.http import BODY_ERRORS
from mockpay.types import Id, Moment, rfc3339
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers
from mockpay.web.pages import read_page
from mockpay.web.parameters import (
    CursorParameter,
    LimitParameter,
    QueryReader,
    path_id,
    path_uuid,
    query,
)
from mockpay.webhooks.log import DeadLetterFilter, Delivery

FILTERS: Final = DeadLetterFilter.__struct_fields__
JobId = Annotated[str, path_uuid("A job_id of the list.")]


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """`payload` is the body that was to be sent."""

    job_id: str
    payment_id: str
    tenant_id: str
    webhook_url: str
    event: str
    attempts: int
    max_attempts: int
    last_error: str | None
    created_at: str
    failed_at: str
    payload: dict[str, Any]


class DeadLettersView(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first. `total` counts all that match, not the page."""

    total: int
    message: str
    failed_jobs: list[DeadLetterView]
    next_cursor: str | None


class ReplayedView(msgspec.Struct, frozen=True, kw_only=True):
    """`skipped` are those whose payment has no webhook URL any more; they stay dead."""

    message: str
    replayed: int
    skipped: int


@get(
    "/api/admin/dlq",
    summary="List the dead letters, newest first",
    responses=error_answers(errors.InvalidRequest, *ADMIN_ERRORS),
    **ADMIN_ROUTE,
)
async def list_dead_letters(
    request: Request[Any, Any, Any],
    context: ContextDependency,
    limit: LimitParameter = None,
    cursor: CursorParameter = None,
    tenant_id: Annotated[str | None, query("Only of this tenant.", format="uuid")] = None,
    payment_id: Annotated[str | None, query("Only of this payment.", format="uuid")] = None,
    event: Annotated[str | None, query("Only of this event.")] = None,
    last_error: Annotated[str | None, query("Only with this last error.")] = None,
    failed_from: Annotated[str | None, query("RFC 3339, inclusive.", format="date-time")] = None,
    failed_to: Annotated[str | None, query("RFC 3339, exclusive.", format="date-time")] = None,
) -> Response[DeadLettersView]:
    reader = QueryReader(request.query_params.multi_items(), ("limit", "cursor", *FILTERS))
    asked = read_page(reader, "dead_letters")
    wanted = _filter(reader)
    reader.finish()
    total, found = await service.dead_letters(context, wanted, before=asked.before_id, limit=asked.fetched)
    page = asked.cut(found)
    view = DeadLettersView(
        total=total,
        message=_message(total),
        failed_jobs=[_view(delivery) for delivery in page.rows],
        next_cursor=page.next_cursor,
    )
    return json_response(encode(view), 200)


@post(
    "/api/admin/dlq/{job_id:str}/replay",
    status_code=202,
    summary="Replay one dead letter",
    responses=error_answers(errors.InvalidRequest, errors.NotFound, errors.NotReplayable, *ADMIN_ERRORS),
    **ADMIN_ROUTE,
)
async def replay_dead_letter(job_id: JobId, context: ContextDependency) -> Response[ReplayedView]:
    """It is sent at once, to where the payment's webhooks go now, and has all its attempts again."""
    replayed = await service.replay_dead(context, path_id("job_id", job_id))
    view = ReplayedView(message=f"Queued for {replayed.url}.", replayed=1, skipped=0)
    return json_response(encode(view), 202)


@post(
    "/api/admin/dlq/replay",
    dto=StrictBody.of(DeadLetterFilter),
    return_dto=None,
    status_code=202,
    summary="Replay all dead letters that match a filter",
    responses=error_answers(*BODY_ERRORS, *ADMIN_ERRORS),
    **ADMIN_ROUTE,
)
async def replay_dead_letters(
    context: ContextDependency, data: JSONBody[DeadLetterFilter | None] = None
) -> Response[ReplayedView]:
    """Without a filter it is all of them."""
    done = await service.replay_all_dead(context, data or DeadLetterFilter())
    message = f"Dead letters queued: {done.replayed}."
    if done.skipped:
        message += f" Still dead, since their payments have no webhook_url any more: {done.skipped}."
    return json_response(encode(ReplayedView(message=message, replayed=done.replayed, skipped=done.skipped)), 202)


ROUTES = [list_dead_letters, replay_dead_letters, replay_dead_letter]


def _filter(reader: QueryReader) -> DeadLetterFilter:
    return DeadLetterFilter(
        tenant_id=reader.read("tenant_id", Id.parse, None),
        payment_id=reader.read("payment_id", Id.parse, None),
        event=reader.read("event", str, None),
        last_error=reader.read("last_error", str, None),
        failed_from=reader.read("failed_from", Moment.parse, None),
        failed_to=reader.read("failed_to", Moment.parse, None),
    )


def _message(total: int) -> str:
    if total == 0:
        return "No webhook is dead."
    return f"Dead webhooks: {total}. POST /api/admin/dlq/{{job_id}}/replay sends one again."


def _view(delivery: Delivery) -> DeadLetterView:
    assert delivery.finished_at is not None, "a dead letter is over"
    return DeadLetterView(
        job_id=str(delivery.id),
        payment_id=str(delivery.payment_id),
        tenant_id=str(delivery.tenant_id),
        webhook_url=delivery.url,
        event=delivery.event,
        attempts=delivery.attempts,
        max_attempts=delivery.max_attempts,
        last_error=delivery.last_error,
        created_at=rfc3339(delivery.created_at),
        failed_at=rfc3339(delivery.finished_at),
        payload=decode(delivery.payload),
    )
