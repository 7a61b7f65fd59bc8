"""What faults may hold at once: for a tenant, for a process, in requests and in bytes of bodies."""

from contextlib import ExitStack
from uuid import UUID

import pytest

from mockpay.errors import TooManyHeld
from mockpay.faults.budget import MEBIBYTE, HoldBudget
from mockpay.faults.model import parse

ONE, TWO, THREE, FOUR, FIVE = (UUID(int=number) for number in range(1, 6))


def held(budget: HoldBudget, tenant_id: UUID, body_bytes: int = 0, most: int = 10_000) -> tuple[int, str]:
    """How many of this tenant can be held at once, and what the next one is told. All of them are over then."""
    with ExitStack() as stack:
        return fill(stack, budget, tenant_id, body_bytes, most)


def fill(
    stack: ExitStack, budget: HoldBudget, tenant_id: UUID, body_bytes: int = 0, most: int = 10_000
) -> tuple[int, str]:
    for number in range(most):
        try:
            stack.enter_context(budget.hold(tenant_id, body_bytes))
        except TooManyHeld as error:
            return number, error.sentence
    return most, ""


@pytest.mark.parametrize(("connections_max", "of_a_tenant", "of_all"), [
    (65_000, 200, 800), (1_600, 200, 800), (880, 200, 440), (156, 39, 78),
])  # fmt: skip
def test_half_of_the_connections_and_of_that_half_for_a_tenant(
    connections_max: int, of_a_tenant: int, of_all: int
) -> None:
    budget = HoldBudget(connections_max)
    for _ in range(2):  # what is over is not counted
        number, told = held(budget, ONE)
        assert number == of_a_tenant
        assert f"{of_a_tenant} of this tenant's requests" in told
    with ExitStack() as stack:
        tenants = (ONE, TWO, THREE, FOUR, FIVE)
        counts = [fill(stack, budget, tenant) for tenant in tenants]
        assert sum(number for number, _ in counts) == of_all
        assert f"{of_all} of all tenants' requests" in counts[-1][1]
    assert held(budget, FIVE)[0] == of_a_tenant


def test_bodies_count_by_their_size() -> None:
    budget = HoldBudget(65_000)
    with ExitStack() as stack:
        number, told = fill(stack, budget, ONE, 256 * 1024)
        assert (number, "this tenant's" in told, "8 MiB" in told) == (32, True, True)
        assert fill(stack, budget, ONE, 0, most=10) == (10, ""), "what has no body has room"
        for tenant in (TWO, THREE, FOUR):
            assert fill(stack, budget, tenant, MEBIBYTE)[0] == 8
        number, told = fill(stack, budget, FIVE, 1)
        assert (number, "all tenants'" in told, "32 MiB" in told) == (0, True, True)
    assert held(budget, FIVE, MEBIBYTE)[0] == 8


def test_what_ends_by_an_error_is_over_too() -> None:
    budget = HoldBudget(4)  # one of a tenant
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), budget.hold(ONE, 1):
            raise ZeroDivisionError
    assert held(budget, ONE)[0] == 1


@pytest.mark.parametrize(("fault", "holds", "is_done"), [
    ("latency", True, True), ("timeout", True, False), ("reset", True, False), ("error", False, False), ("in_progress", False, False),
    ("truncated", True, True), ("malformed", False, True), ("lost_response", True, True), ("lost_response; as=timeout", True, True),
    ("lost_response; as=error", False, True),
])  # fmt: skip
def test_which_faults_hold_a_request(fault: str, holds: bool, is_done: bool) -> None:
    injection = parse(fault)
    assert (injection.holds, injection.is_done) == (holds, is_done)
