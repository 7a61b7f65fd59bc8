"""Routes of a tenant's fault rules."""

from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, delete, get, post
from litestar.params import JSONBody

from mockpay import errors
from mockpay.events import Event
from mockpay.exact_json import encode
from mockpay.faults import service
from mockpay.faults.requests import CreateFault
from mockpay.faults.rules import Operation, Rule, Target
from mockpay.tenants.http import BODY_ERRORS, READ_ERRORS, TENANT_ROUTE, TenantDependency
from mockpay.types import rfc3339
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers
from mockpay.web.parameters import path_id, path_uuid

FAULT_ROUTE: Final[dict[str, Any]] = {**TENANT_ROUTE, "tags": ["faults"]}
FaultId = Annotated[str, path_uuid()]


class FaultView(msgspec.Struct, frozen=True, kw_only=True):
    """`matched` counts what the rule was asked about, `fired` the faults that it made."""

    id: str
    target: Target
    operation: Operation | None
    event: Event | None
    fault: str
    times: int | None
    every: int | None
    probability: Decimal | None
    seed: int
    matched: int
    fired: int
    created_at: str


class FaultsView(msgspec.Struct, frozen=True, kw_only=True):
    """In the order in which they are asked: the first that fires is the fault of the request."""

    total: int
    faults: list[FaultView]


@post(
    "/api/faults",
    dto=StrictBody.of(CreateFault),
    return_dto=None,
    summary="Let requests or webhooks fail by a rule",
    responses=error_answers(*BODY_ERRORS, *READ_ERRORS),
    **FAULT_ROUTE,
)
async def create_fault(
    data: JSONBody[CreateFault], tenant: TenantDependency, context: ContextDependency
) -> Response[FaultView]:
    """Effective from the tenant's next request, on every process. The header of a request goes before rules."""
    rule = await service.create(context, tenant, data)
    return json_response(encode(fault_view(rule)), 201)


@get(
    "/api/faults",
    summary="List one's fault rules",
    responses=error_answers(*READ_ERRORS),
    **FAULT_ROUTE,
)
async def list_faults(tenant: TenantDependency, context: ContextDependency) -> Response[FaultsView]:
    rules = await service.of_tenant(context, tenant)
    return json_response(encode(FaultsView(total=len(rules), faults=[fault_view(rule) for rule in rules])), 200)


@delete(
    "/api/faults/{fault_id:str}",
    status_code=204,
    summary="Delete a fault rule",
    responses=error_answers(errors.InvalidRequest, errors.NotFound, *READ_ERRORS),
    **FAULT_ROUTE,
)
async def delete_fault(fault_id: FaultId, tenant: TenantDependency, context: ContextDependency) -> None:
    await service.delete(context, tenant, path_id("fault_id", fault_id))


@delete(
    "/api/faults",
    status_code=204,
    summary="Delete all of one's fault rules",
    responses=error_answers(*READ_ERRORS),
    **FAULT_ROUTE,
)
async def delete_faults(tenant: TenantDependency, context: ContextDependency) -> None:
    await service.delete_all(context, tenant)


ROUTES = [create_fault, list_faults, delete_fault, delete_faults]


def fault_view(rule: Rule) -> FaultView:
    return FaultView(
        id=str(rule.id),
        target=rule.target,
        operation=rule.operation,
        event=rule.event,
        fault=rule.fault,
        times=rule.times,
        every=rule.every,
        probability=rule.probability,
        seed=rule.seed,
        matched=rule.matched,
        fired=rule.fired,
        created_at=rfc3339(rule.created_at),
    )
