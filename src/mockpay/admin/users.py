"""Routes of tenants, for the administrator. Their keys and secrets never appear here."""

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Request, Response, get, patch
from litestar.params import JSONBody

from mockpay import errors
from mockpay.admin.access import ADMIN_ERRORS, ADMIN_ROUTE
from mockpay.cursor import Cursor
from mockpay.errors import NotFound
from mockpay.exact_json import encode
from mockpay.payments import store as payments
from mockpay.settings import RateLimitTier
from mockpay.tenants import store as tenants
from mockpay.tenants.http import BODY_ERRORS
from mockpay.tenants.model import Tenant
from mockpay.types import rfc3339
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers
from mockpay.web.parameters import (
    CursorParameter,
    LimitParameter,
    QueryReader,
    cursor_of,
    page_limit,
    path_id,
    path_uuid,
)
from mockpay.webhooks.log import LAST_ID

CURSOR_OF: Final = "users"
UserId = Annotated[str, path_uuid("A tenant's id.")]


class ChangeUser(msgspec.Struct, frozen=True):
    """The body of PATCH /api/admin/users/{id}."""

    rate_limit_tier: RateLimitTier


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """`payments` is how many the tenant has made."""

    id: str
    name: str
    email: str
    rate_limit_tier: RateLimitTier
    created_at: str
    payments: int


class UsersView(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first. `total` counts all, not the page."""

    total: int
    users: list[UserView]
    next_cursor: str | None


@get(
    "/api/admin/users",
    summary="List the tenants, newest first",
    responses=error_answers(errors.InvalidRequest, *ADMIN_ERRORS),
    **ADMIN_ROUTE,
)
async def list_users(
    request: Request[Any, Any, Any],
    context: ContextDependency,
    limit: LimitParameter = None,
    cursor: CursorParameter = None,
) -> Response[UsersView]:
    reader = QueryReader(request.query_params.multi_items(), ("limit", "cursor"))
    size = reader.read("limit", page_limit, 10)
    after = reader.read("cursor", cursor_of(CURSOR_OF), None)
    reader.finish()
    async with context.database.connection() as connection:
        total = await tenants.count(connection)
        found = await tenants.page(connection, after.id if after else LAST_ID, size + 1)
        shown = found[:size]
        counts = await payments.count_by_tenant(connection, [tenant.id for tenant in shown])
    view = UsersView(
        total=total,
        users=[_view(tenant, counts) for tenant in shown],
        next_cursor=Cursor(shown[-1].created_at, shown[-1].id).encode(CURSOR_OF) if len(found) > size else None,
    )
    return json_response(encode(view), 200)


@patch(
    "/api/admin/users/{user_id:str}",
    dto=StrictBody.of(ChangeUser),
    return_dto=None,
    summary="Change a tenant's rate limit tier",
    responses=error_answers(*BODY_ERRORS, errors.NotFound, *ADMIN_ERRORS),
    **ADMIN_ROUTE,
)
async def change_user(user_id: UserId, data: JSONBody[ChangeUser], context: ContextDependency) -> Response[UserView]:
    """Effective from the tenant's next request, which opens a new window."""
    id_ = path_id("user_id", user_id)
    async with context.database.transaction() as connection:
        tenant = await tenants.set_tier(connection, id_, data.rate_limit_tier)
        if tenant is None:
            raise NotFound("There is no such tenant.")
        counts = await payments.count_by_tenant(connection, [id_])
    return json_response(encode(_view(tenant, counts)), 200)


ROUTES = [list_users, change_user]


def _view(tenant: Tenant, counts: dict[UUID, int]) -> UserView:
    return UserView(
        id=str(tenant.id),
        name=tenant.name,
        email=tenant.email,
        rate_limit_tier=tenant.rate_limit_tier,
        created_at=rfc3339(tenant.created_at),
        payments=counts.get(tenant.id, 0),
    )
