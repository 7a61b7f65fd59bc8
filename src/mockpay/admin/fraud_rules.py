"""Routes of fraud rules. Each payment reads them: a change is effective from the next one, on every process."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import JSONBody

from mockpay import errors
from mockpay.admin.access import ADMIN_ERRORS, ADMIN_ROUTE
from mockpay.context import Context
from mockpay.cursor import Cursor
from mockpay.errors import Fault, InvalidRequest, NotFound
from mockpay.exact_json import encode
from mockpay.payments import rules
from mockpay.payments.fraud import RuleType, Threshold, faults_of
from mockpay.payments.rules import StoredRule
from mockpay.tenants import store as tenants
from mockpay.tenants.http import BODY_ERRORS
from mockpay.types import Currency, Id, rfc3339
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers
from mockpay.web.parameters import CursorParameter, QueryReader, cursor_of, page_limit, path_id, path_uuid, query

CURSOR_OF: Final = "fraud_rules"
PAGE_SIZE: Final = 100
NO_RULE: Final = "There is no such fraud rule."

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
WindowSeconds = Annotated[int, msgspec.Meta(ge=1, le=31_536_000)]
RuleId = Annotated[str, path_uuid()]


class CreateRule(msgspec.Struct, frozen=True):
    """The body of POST /api/admin/fraud-rules. Without a currency or a tenant it holds for all of them."""

    name: Name
    rule_type: RuleType
    threshold: Threshold
    window_secs: WindowSeconds | None = None
    currency: Currency | None = None
    tenant_id: Id | None = None
    action: Literal["flag"] = "flag"
    is_active: bool = True

    def __post_init__(self) -> None:
        _check(self.rule_type, self.threshold, self.window_secs)


class ChangeRule(msgspec.Struct, frozen=True):
    """The body of PATCH /api/admin/fraud-rules/{id}. What is left out stays."""

    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    threshold: Threshold | msgspec.UnsetType = msgspec.UNSET
    window_secs: WindowSeconds | msgspec.UnsetType = msgspec.UNSET
    name: Name | msgspec.UnsetType = msgspec.UNSET

    def applied_to(self, rule: StoredRule) -> StoredRule:
        """An empty change toggles `is_active`. Raises InvalidRequest if the whole does not fit together."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not msgspec.UNSET}
        changed: StoredRule = msgspec.structs.replace(rule, **(given or {"is_active": not rule.is_active}))
        _check(changed.rule_type, changed.threshold, changed.window_secs)
        return changed


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
    size = reader.read("limit", page_limit, PAGE_SIZE)
    after = reader.read("cursor", cursor_of(CURSOR_OF), None)
    reader.finish()
    async with context.database.connection() as connection:
        total = await rules.count(connection)
        found = await rules.page(connection, after, size + 1)
    shown = found[:size]
    next_cursor = Cursor(shown[-1].created_at, shown[-1].id).encode(CURSOR_OF) if len(found) > size else None
    view = RulesView(total=total, rules=[_view(rule) for rule in shown], next_cursor=next_cursor)
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
    rule = _new_rule(data, context.new_id(), context.clock.now())
    async with context.database.transaction() as connection:
        if data.tenant_id and not await tenants.by_id(connection, data.tenant_id):
            raise InvalidRequest([Fault("tenant_id", "is no tenant's id")])
        await rules.insert(connection, rule)
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
    changed = await _change(context, path_id("rule_id", rule_id), data or ChangeRule())
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
    id_ = path_id("rule_id", rule_id)
    async with context.database.connection() as connection:
        if not await rules.delete(connection, id_):
            raise NotFound(NO_RULE)


ROUTES = [list_rules, create_rule, change_rule, delete_rule]


async def _change(context: Context, rule_id: UUID, change: ChangeRule) -> StoredRule:
    async with context.database.transaction() as connection:
        rule = await rules.by_id_locked(connection, rule_id)
        if rule is None:
            raise NotFound(NO_RULE)
        changed = change.applied_to(rule)
        await rules.update(connection, changed)
    return changed


def _check(rule_type: RuleType, threshold: Any, window_secs: int | None) -> None:
    faults = faults_of(rule_type, threshold, window_secs)
    if faults:
        raise InvalidRequest(faults)


def _new_rule(data: CreateRule, rule_id: UUID, now: datetime) -> StoredRule:
    return StoredRule(id=rule_id, created_at=now, **msgspec.structs.asdict(data))


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
