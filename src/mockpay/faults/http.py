"""Routes of a tenant's fault rules."""

from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, delete, get, post
from litestar.params import JSONBody

from mockpay import errors
from mockpay.chance import Probability, Seed
from mockpay.errors import Fault, InvalidRequest, NotFound
from mockpay.exact_json import encode
from mockpay.faults import store
from mockpay.faults.model import Effect, parse
from mockpay.faults.rules import Operation, Rule
from mockpay.tenants import store as tenants
from mockpay.tenants.http import BODY_ERRORS, READ_ERRORS, TENANT_ROUTE, TenantDependency
from mockpay.types import rfc3339
from mockpay.web.answers import json_response
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers
from mockpay.web.parameters import path_id, path_uuid

RULES_MAX: Final = 100
FAULT_ROUTE: Final[dict[str, Any]] = {**TENANT_ROUTE, "tags": ["faults"]}
FaultId = Annotated[str, path_uuid()]
Number = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class FaultText(str):
    """A fault, spelled as in the header X-MockPay-Fault."""

    __slots__ = ()
    json_schema = {  # noqa: RUF012 - read by the OpenAPI plugin
        "type": "string",
        "pattern": rf"^({'|'.join(Effect)})(; ?[a-z]+=[A-Za-z0-9_.]+)*$",
        "examples": ["lost_response; as=timeout"],
    }

    @classmethod
    def parse(cls, raw: object) -> "FaultText":
        if not isinstance(raw, str):
            raise ValueError("must be a string such as 'error; status=503'")
        try:
            parse(raw)
        except InvalidRequest as error:
            raise ValueError(error.details[0].message) from error
        return cls(raw)


class CreateFault(msgspec.Struct, frozen=True):
    """The body of POST /api/faults. Without times, every or probability the rule always fires."""

    fault: FaultText
    operation: Operation | None = None
    times: Number | None = None
    every: Number | None = None
    probability: Probability | None = None
    seed: Seed | None = None

    def __post_init__(self) -> None:
        modes = {"times": self.times, "every": self.every, "probability": self.probability}
        given = [name for name, value in modes.items() if value is not None]
        if len(given) > 1:
            raise InvalidRequest([Fault(name, "is one of three: give times, every or probability") for name in given])


class FaultView(msgspec.Struct, frozen=True, kw_only=True):
    """`matched` counts the requests that the rule was asked about, `fired` the faults that it made."""

    id: str
    operation: Operation | None
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
    summary="Let requests fail by a rule",
    responses=error_answers(*BODY_ERRORS, *READ_ERRORS),
    **FAULT_ROUTE,
)
async def create_fault(
    data: JSONBody[CreateFault], tenant: TenantDependency, context: ContextDependency
) -> Response[FaultView]:
    """Effective from the tenant's next request, on every process. The header of a request goes before rules."""
    rule = Rule(
        id=context.new_id(),
        matched=0,
        fired=0,
        created_at=context.clock.now(),
        **msgspec.structs.asdict(data) | {"seed": context.new_seed() if data.seed is None else data.seed},
    )
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        if len(await store.of_tenant(connection, tenant.id)) >= RULES_MAX:
            raise InvalidRequest([Fault("fault", f"is one too many: a tenant may have {RULES_MAX} rules; delete some")])
        await store.insert(connection, tenant.id, rule)
    return json_response(encode(_view(rule)), 201)


@get(
    "/api/faults",
    summary="List one's fault rules",
    responses=error_answers(*READ_ERRORS),
    **FAULT_ROUTE,
)
async def list_faults(tenant: TenantDependency, context: ContextDependency) -> Response[FaultsView]:
    async with context.database.connection() as connection:
        rules = await store.of_tenant(connection, tenant.id)
    return json_response(encode(FaultsView(total=len(rules), faults=[_view(rule) for rule in rules])), 200)


@delete(
    "/api/faults/{fault_id:str}",
    status_code=204,
    summary="Delete a fault rule",
    responses=error_answers(errors.InvalidRequest, errors.NotFound, *READ_ERRORS),
    **FAULT_ROUTE,
)
async def delete_fault(fault_id: FaultId, tenant: TenantDependency, context: ContextDependency) -> None:
    id_ = path_id("fault_id", fault_id)
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        if not await store.delete(connection, tenant.id, id_):
            raise NotFound("There is no such fault rule.")


@delete(
    "/api/faults",
    status_code=204,
    summary="Delete all of one's fault rules",
    responses=error_answers(*READ_ERRORS),
    **FAULT_ROUTE,
)
async def delete_faults(tenant: TenantDependency, context: ContextDependency) -> None:
    async with context.database.transaction() as connection:
        await tenants.lock(connection, tenant.id)
        await store.delete_all(connection, tenant.id)


ROUTES = [create_fault, list_faults, delete_fault, delete_faults]


def _view(rule: Rule) -> FaultView:
    return FaultView(
        id=str(rule.id),
        operation=rule.operation,
        fault=rule.fault,
        times=rule.times,
        every=rule.every,
        probability=rule.probability,
        seed=rule.seed,
        matched=rule.matched,
        fired=rule.fired,
        created_at=rfc3339(rule.created_at),
    )
