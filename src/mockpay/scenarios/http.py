"""Routes of scenarios."""

from typing import Any, Final

import msgspec
from litestar import Response, get, post
from litestar.params import JSONBody

from mockpay.errors import Fault, InvalidRequest
from mockpay.exact_json import encode
from mockpay.faults.http import FaultView, fault_view
from mockpay.scenarios import service
from mockpay.scenarios.model import read_scenario
from mockpay.scenarios.ready import FILES
from mockpay.scenarios.requests import FileText, RunScenario
from mockpay.tenants.http import BODY_ERRORS, READ_ERRORS, TENANT_ROUTE, TenantDependency
from mockpay.web.answers import json_response
from mockpay.web.body import convert, media_type_of
from mockpay.web.dependencies import ContextDependency
from mockpay.web.openapi import StrictBody
from mockpay.web.openapi import errors as error_answers

SCENARIO_ROUTE: Final[dict[str, Any]] = {**TENANT_ROUTE, "tags": ["scenarios"]}


class ScenarioView(msgspec.Struct, frozen=True, kw_only=True):
    """`file` is the whole of it, to begin one's own with."""

    name: str
    teaches: str
    file: str


class ScenariosView(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    scenarios: list[ScenarioView]


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """With the same `seed` the same requests fail in the same way."""

    name: str
    teaches: str
    seed: int
    faults: list[FaultView]


class ScenarioBody(StrictBody):
    """JSON, or the file itself."""

    def decode_bytes(self, value: bytes) -> Any:
        if media_type_of(self.asgi_connection.headers.get("content-type")) != "application/toml":
            return super().decode_bytes(value)
        try:
            return RunScenario(file=convert(value.decode(), FileText))
        except ValueError as error:
            raise InvalidRequest([Fault("file", str(error))]) from error


@get(
    "/api/scenarios",
    summary="List the ready scenarios",
    responses=error_answers(*READ_ERRORS),
    **SCENARIO_ROUTE,
)
async def list_scenarios() -> Response[ScenariosView]:
    found = [(read_scenario(text), text) for text in FILES.values()]
    views = [ScenarioView(name=each.name, teaches=each.teaches, file=text) for each, text in found]
    return json_response(encode(ScenariosView(total=len(views), scenarios=views)), 200)


@post(
    "/api/scenarios/run",
    dto=ScenarioBody.of(RunScenario),
    return_dto=None,
    summary="Run a scenario",
    responses=error_answers(*BODY_ERRORS, *READ_ERRORS),
    **SCENARIO_ROUTE,
)
async def run_scenario(
    data: JSONBody[RunScenario], tenant: TenantDependency, context: ContextDependency
) -> Response[RunView]:
    """From the next request on its faults are the tenant's, in place of those that were: the same scenario with the
    same seed is the same from its beginning. `DELETE /api/faults` ends it. A file may also be sent as it is, as
    `application/toml`.
    """
    run = await service.run(context, tenant, data)
    view = RunView(
        name=run.scenario.name,
        teaches=run.scenario.teaches,
        seed=run.seed,
        faults=[fault_view(rule) for rule in run.rules],
    )
    return json_response(encode(view), 201)


ROUTES = [list_scenarios, run_scenario]
