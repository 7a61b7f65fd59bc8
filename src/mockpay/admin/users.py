"""Routes of tenants, for the administrator. Their keys and secrets never appear here."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, patch
from litestar.params import JSONBody

from mockpay import errors
from mockpay.admin import service
from mockpay.admin.access import ADMIN_ERRORS, ADMIN_ROUTE
from mockpay.admin.requests import ChangeUser
from mockpay.admin.service import User
from mockpay.exact_json import encode
from mockpay.settings import RateLimitTier
from mockpay.tenants.http import BODY_ERRORS
from mockpay.types import rfc3339
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers
from mockpay.web.pages import read_page
from mockpay.web.parameters import CursorParameter, LimitParameter, QueryReader, path_id, path_uuid

UserId = Annotated[str, path_uuid("A tenant's id.")]


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
    asked = read_page(reader, "users")
    reader.finish()
    total, found = await service.users_page(context, before=asked.before_id, limit=asked.fetched)
    page = asked.cut(found)
    view = UsersView(total=total, users=[_view(user) for user in page.rows], next_cursor=page.next_cursor)
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
    user = await service.change_tier(context, path_id("user_id", user_id), data.rate_limit_tier)
    return json_response(encode(_view(user)), 200)


ROUTES = [list_users, change_user]


def _view(user: User) -> UserView:
    return UserView(
        id=str(user.id),
        name=user.tenant.name,
        email=user.tenant.email,
        rate_limit_tier=user.tenant.rate_limit_tier,
        created_at=rfc3339(user.created_at),
        payments=user.payments,
    )
