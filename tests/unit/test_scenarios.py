"""Scenario files: the ready ones, what is wrong in others, and seeds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockpay.errors import InvalidRequest
from mockpay.scenarios.model import Scenario, read_scenario
from mockpay.scenarios.ready import FILES

SMALL = 'name = "mine"\nteaches = "x"\n[[faults]]\nfault = "reset"\n'
READY = [
    "duplicate_webhook", "flaky_gateway", "forged_webhook", "lost_response", "out_of_order", "outage_and_recovery", "slow_bank",
    "webhook_storm",
]  # fmt: skip


def test_the_ready_ones() -> None:
    assert list(FILES) == READY
    for name, text in FILES.items():
        scenario = read_scenario(text)
        assert scenario.name == name
        assert scenario.teaches.startswith("Whether your ")


@pytest.mark.parametrize(("text", "faulty"), [
    ("", {"name", "teaches", "faults"}), ("name =", {"file"}), (SMALL + "evry = 2", {"faults.0.evry"}),
    (SMALL.replace("reset", "explode"), {"faults.0.fault"}), (SMALL + "times = 1\nevery = 2", {"faults.0.times", "faults.0.every"}),
    ('name = "Mine!"\nteaches = 3\nfaults = 4', {"name", "teaches", "faults"}), ('faults = [1]\nname="a"\nteaches="b"', {"faults.0"}),
    ('faults = []\nname="a"\nteaches="b"', {"faults"}), (SMALL + "probability = inf", {"faults.0.probability"}),
    (SMALL + "times = nan", {"faults.0.times"}), (SMALL + "times = inf", {"faults.0.times"}), (SMALL + "seed = 2026-01-31", {"faults.0.seed"}),
    (SMALL + f"times = {'9' * 5000}", {"file"}), ("name = " + "[" * 5000, {"file"}), (SMALL + "[[faults]]\nfault = 'reset'\n" * 20, {"faults"}),
    (SMALL.replace("[[faults]]", "[faults]"), {"faults"}), (SMALL + "probability = 1e-20000", {"faults.0.probability"}),
    (SMALL.replace("reset", "error" + " " * 200), {"faults.0.fault"}), (SMALL.replace("mine", "\\u0000"), {"name"}), (SMALL + "event = 'payment.success'", {"faults.0.event"}), (SMALL + "times = 1e400", {"faults.0.times"}),
])  # fmt: skip
def test_what_is_wrong_is_named(text: str, faulty: set[str]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_scenario(text)
    assert {fault.field for fault in raised.value.details} == faulty
    assert all(fault.message for fault in raised.value.details)


LINES = st.sampled_from([
    'name = "mine"', 'teaches = "x"', "[[faults]]", "[faults]", 'fault = "reset"', 'fault = "delay; seconds=1-2"', "times = 1", "every = 0",
    "probability = 0.5", "seed = 7", "seed = 1e3", 'event = "payment.success"', 'operation = "create"', "faults = [{}]", "x.y = 1",
])  # fmt: skip


@given(st.one_of(st.text(), st.lists(LINES, max_size=8).map("\n".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(read_scenario(text), Scenario)
    except InvalidRequest as error:
        assert error.details


def test_every_fault_has_a_seed_that_follows_from_that_of_the_run() -> None:
    scenario = read_scenario(SMALL + "[[faults]]\nfault = 'reset'\nseed = 5\n[[faults]]\nfault = 'timeout'")

    def seeds(seed: int) -> list[Any]:
        return [fault.seed for fault in scenario.seeded(seed)]

    assert seeds(7) == seeds(7) != seeds(8)
    assert seeds(7)[1] == 5
    assert len(set(seeds(7))) == 3
