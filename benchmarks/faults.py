"""What it costs that requests could be made to fail, and that they are kept for the timeline.

The same load on servers that differ in one thing, in turns, so that what else the machine does meets all of them.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.support.processes import Gateway, running

from benchmarks import load
from mockpay.database_access import DatabaseAccess

ROUNDS: Final = 5
CONNECTIONS: Final = 32
WITH_RULE: Final = "each tenant with a rule that never fires"
NEVER_FIRES: Final = {"fault": "reset", "operation": "create", "probability": 0}


class WithoutFaults(Gateway):
    """The API without the layer that makes requests fail."""

    module = "benchmarks.without_faults"


def cost(folder: Path, access: DatabaseAccess, seconds: float) -> Iterator[tuple[str, str, str, str]]:
    """Creates a second, and as ratios to those of the server as it is."""
    settings = {**load.SETTINGS, "MOCKPAY_DATABASE_URL": access.url}
    with ExitStack() as stack:

        def start(kind: type[Gateway], name: str, **more: str) -> Gateway:
            gateway = kind(folder / f"{name}.log", "api", **settings, **more)
            stack.enter_context(running(gateway))
            return gateway

        as_it_is = start(Gateway, "as-it-is")
        cases: dict[str, tuple[Gateway, dict[str, Any] | None]] = {
            "as it is, no fault set": (as_it_is, None),
            "without the layer of faults": (start(WithoutFaults, "without-faults"), None),
            "requests not kept for the timeline": (start(Gateway, "not-kept", MOCKPAY_TIMELINE_HOURS="0"), None),
            WITH_RULE: (as_it_is, NEVER_FIRES),
        }
        rates: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(ROUNDS):
            for name, (gateway, rule) in cases.items():
                keys = _tenants(gateway, rule)
                found = load.measure(gateway, "create", keys, folder, connections=CONNECTIONS, seconds=seconds / 2)
                rates[name].append(found.per_second)
        base = rates["as it is, no fault set"]
        for name, of_case in rates.items():
            ratios = sorted(one / other for one, other in zip(of_case, base, strict=True))
            yield name, f"{median(of_case):,.0f}", f"{median(ratios):.2f}", f"{ratios[0]:.2f} to {ratios[-1]:.2f}"


def _tenants(gateway: Gateway, rule: dict[str, Any] | None) -> list[str]:
    """Keys of new ones, who have the rule if there is one."""
    keys = load.registered(gateway, CONNECTIONS)
    for key in keys if rule else []:
        headers = {"Authorization": f"Bearer {key}"}
        gateway.client.post("/api/faults", json=rule, headers=headers).raise_for_status()
    return keys
