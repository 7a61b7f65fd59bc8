"""Routes of fraud rules. Each payment reads them: a change is effective from the next one, on every process."""

from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import JSONBody

from mockpay import errors
from mockpay.admin import service
from mockpay.admin.access import ADMIN_ERRORS, ADMIN_ROUTE
from mockpay.admin.requests import ChangeRule, CreateRule
from mockpay.exact_json import encode
from mockpay.payments.fraud import RuleType, StoredRule
from mockpay.tenants.http import BODY_ERRORS
from mockpay.types import rfc3339
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers
from mockpay.web.pages import read_page
from mockpay.web.parameters import CursorParameter, QueryReader, path_id, path_uuid, query

PAGE_SIZE: Final = 100

RuleId = Annotated[str, path_uuid()]


class RuleView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    rule_type: RuleType
    threshold: Decimal
    window_secs: int | None
    currency: str | None
    tenant_id: str | None
    action: str
    is_active: bool
    created_at: str


class RulesView(msgspec.Struct, frozen=True, kw_only=True):
    """In the order in which they are applied. `total` counts all, not the page."""

    total: int
    rules: list[RuleView]
    next_cursor: str | None


@get(
    "/api/admin/fraud-rules",
    summary="List the fraud rules",
    responses=error_answers(errors.InvalidRequest, *ADMIN_ERRORS),
    **ADMIN_ROUTE,
)
async def list_rules(
    request: Request[Any, Any, Any],
    context: ContextDependency,
    limit: Annotated[
        str | None, query("How many at most; 100 if left out.", type=OpenAPIType.INTEGER, minimum=1, maximum=PAGE_SIZE)
    ] = None,
    cursor: CursorParameter = None,
) -> Response[RulesView]:
    """In the order in which they are applied: the first that a payment breaks flags it."""
    reader = QueryReader(request.query_params.multi_items(), ("limit", "cursor"))
    asked = read_page(reader, "fraud_rules", PAGE_SIZE)
    reader.finish()
    total, found = await service.rules_page(context, after=asked.after, limit=asked.fetched)
    page = asked.cut(found)
    view = RulesView(total=total, rules=[_view(rule) for rule in page.rows], next_cursor=page.next_cursor)
    return json_response(encode(view), 200)


@post(
    "/api/admin/fraud-rules",
    dto=StrictBody.of(CreateRule),
    return_dto=None,
    summary="Create a fraud rule",
    responses=error_answers(*BODY_ERRORS, *ADMIN_ERRORS),
    **ADMIN_ROUTE,
)
async def create_rule(data: JSONBody[CreateRule], context: ContextDependency) -> Response[RuleView]:
    """Effective from the next payment, on every process."""
    rule = await service.create_rule(context, data)
    return json_response(encode(_view(rule)), 201)


@patch(
    "/api/admin/fraud-rules/{rule_id:str}",
    dto=StrictBody.of(ChangeRule),
    return_dto=None,
    summary="Change a fraud rule, or turn it on or off",
    responses=error_answers(*BODY_ERRORS, errors.NotFound, *ADMIN_ERRORS),
    **ADMIN_ROUTE,
)
async def change_rule(
    rule_id: RuleId, context: ContextDependency, data: JSONBody[ChangeRule | None] = None
) -> Response[RuleView]:
    """An empty body, or an empty object, turns it off if it is on, and on if it is off."""
    changed = await service.change_rule(context, path_id("rule_id", rule_id), data or ChangeRule())
    return json_response(encode(_view(changed)), 200)


@delete(
    "/api/admin/fraud-rules/{rule_id:str}",
    status_code=204,
    summary="Delete a fraud rule",
    responses=error_answers(errors.InvalidRequest, errors.NotFound, *ADMIN_ERRORS),
    **ADMIN_ROUTE,
)
async def delete_rule(rule_id: RuleId, context: ContextDependency) -> None:
    """Payments that it flagged stay flagged, and go on naming it."""
    await service.delete_rule(context, path_id("rule_id", rule_id))


ROUTES = [list_rules, create_rule, change_rule, delete_rule]


def _view(rule: StoredRule) -> RuleView:
    return RuleView(
        id=str(rule.id),
        name=rule.name,
        rule_type=rule.rule_type,
        threshold=rule.threshold,
        window_secs=rule.window_secs,
        currency=rule.currency,
        tenant_id=str(rule.tenant_id) if rule.tenant_id else None,
        action=rule.action,
        is_active=rule.is_active,
        created_at=rfc3339(rule.created_at),
    )
