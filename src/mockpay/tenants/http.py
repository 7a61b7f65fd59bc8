"""Routes of tenants, and the tenant of a request."""

from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import JSONBody

from mockpay import errors
from mockpay.context import Context
from mockpay.exact_json import encode
from mockpay.tenants import service
from mockpay.tenants.model import Registration, Tenant, bearer_key
from mockpay.tenants.service import Credentials
from mockpay.types import rfc3339
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers

INSTRUCTIONS = (
    "Keep both values: the API key is shown only now. Send it as 'Authorization: Bearer <api_key>', "
    "and verify webhooks with the webhook secret."
)


class RegisteredView(msgspec.Struct, frozen=True):
    message: str
    tenant_id: str
    name: str
    email: str
    api_key: str
    webhook_secret: str
    created_at: str
    instructions: str


class CredentialsView(msgspec.Struct, frozen=True):
    tenant_id: str
    name: str
    email: str
    api_key: str
    webhook_secret: str
    rate_limit_tier: str
    created_at: str


TenantDependency = NamedDependency[Tenant]


async def require_tenant(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The guard of every route that acts for a tenant. A guard runs before the body is read: a stranger gets a 401,
    whatever was sent. Raises Unauthorized.
    """
    context: Context = connection.app.state.context
    connection.state.tenant = await service.authenticate(context, connection.headers.get("authorization"))


def current_tenant(request: Request[Any, Any, Any]) -> Tenant:
    """The tenant that the guard let in."""
    tenant: Tenant = request.state.tenant
    return tenant


TENANT_ROUTE: dict[str, Any] = {"guards": [require_tenant], "security": [{"apiKey": []}]}
"""For the decorator of every such route."""


@post(
    "/api/auth/register",
    dto=StrictBody.of(Registration),
    return_dto=None,
    tags=["tenants"],
    summary="Register a tenant",
    responses=error_answers(
        errors.InvalidRequest,
        errors.MalformedJson,
        errors.EmailTaken,
        errors.BodyTooLarge,
        errors.UnsupportedMediaType,
        errors.DatabaseUnavailable,
    ),
)
async def register(data: JSONBody[Registration], context: ContextDependency) -> Response[RegisteredView]:
    """Returns the API key and the webhook secret. Only a hash of the key is stored, so keep it."""
    credentials = await service.register(context, data)
    return json_response(encode(_registered_view(credentials)), 201)


@get(
    "/api/auth/me",
    tags=["tenants"],
    summary="Read one's own credentials",
    **TENANT_ROUTE,
    responses=error_answers(errors.Unauthorized, errors.DatabaseUnavailable),
)
async def me(
    request: Request[Any, Any, Any], tenant: TenantDependency, context: ContextDependency
) -> Response[CredentialsView]:
    """`api_key` is the one that was presented: it is stored nowhere."""
    api_key = bearer_key(request.headers.get("authorization"))
    assert api_key is not None, "the tenant was authenticated by it"
    view = CredentialsView(
        tenant_id=str(tenant.id),
        name=tenant.name,
        email=tenant.email,
        api_key=api_key,
        webhook_secret=await service.webhook_secret(context, tenant),
        rate_limit_tier=tenant.rate_limit_tier,
        created_at=rfc3339(tenant.created_at),
    )
    return json_response(encode(view), 200)


def _registered_view(credentials: Credentials) -> RegisteredView:
    tenant = credentials.tenant
    return RegisteredView(
        message="Tenant registered.",
        tenant_id=str(tenant.id),
        name=tenant.name,
        email=tenant.email,
        api_key=credentials.api_key,
        webhook_secret=credentials.webhook_secret,
        created_at=rfc3339(tenant.created_at),
        instructions=INSTRUCTIONS,
    )
