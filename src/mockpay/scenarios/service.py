"""Run a scenario: its faults are then the tenant's, and no others."""

import msgspec

from mockpay.context import Context
from mockpay.errors import Fault, InvalidRequest
from mockpay.faults import service as faults
from mockpay.faults.rules import Rule
from mockpay.scenarios.model import Scenario, read_scenario
from mockpay.scenarios.requests import RunScenario
from mockpay.tenants.model import Tenant


class Run(msgspec.Struct, frozen=True):
    scenario: Scenario
    seed: int
    rules: list[Rule]


async def run(context: Context, tenant: Tenant, request: RunScenario) -> Run:
    """The seed is that of the request, or of the file, or a new one. Raises InvalidRequest."""
    scenario = _scenario(request)
    seeds = (request.seed, scenario.seed)
    seed = next((seed for seed in seeds if seed is not None), None)
    if seed is None:
        seed = context.new_seed()
    return Run(scenario, seed, await faults.replace_all(context, tenant, scenario.seeded(seed)))


def _scenario(request: RunScenario) -> Scenario:
    try:
        return read_scenario(request.text)
    except InvalidRequest as error:
        raise InvalidRequest([_in_file(fault) for fault in error.details]) from error


def _in_file(fault: Fault) -> Fault:
    return fault if fault.field == "file" else Fault(f"file.{fault.field}", fault.message)
