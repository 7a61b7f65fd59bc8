"""Who gets the slots that are free."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from mockpay.webhooks.shares import TENANTS_REMEMBERED, Due, Limits, Load, Round, UnderWay, choose, is_hindered

START = datetime(2030, 1, 1, tzinfo=UTC)
A, B, C = (UUID(int=number) for number in (1, 2, 3))


def due(tenant: UUID, host: str, seconds: int, count: int = 1) -> list[Due]:
    """From so many seconds on, one a second."""
    return [
        Due(tenant, UUID(int=tenant.int * 10**9 + (seconds + number) * 1000 + len(host)), host, START + timedelta(seconds=seconds + number))
        for number in range(count)
    ]  # fmt: skip


def chosen(waiting: list[Due], limits: Limits, *under_way: UnderWay) -> Counter[tuple[UUID, str]]:
    return Counter((each.tenant_id, each.receiver_host) for each in choose(waiting, Load(under_way, limits), Round()))


def test_a_tenants_thousand_do_not_stand_before_anothers_one() -> None:
    waiting = due(A, "a", 0, 1000) + due(B, "b", 5000)
    assert chosen(waiting, Limits(10, 10, 10)) == {(A, "a"): 9, (B, "b"): 1}


def test_slots_go_to_those_with_the_fewest_under_way() -> None:
    waiting = due(A, "a", 0, 9) + due(B, "b", 100, 9) + due(C, "c", 200, 9)
    busy = [UnderWay(A, "a")] * 3
    assert chosen(waiting, Limits(9, 9, 9), *busy) == {(B, "b"): 3, (C, "c"): 3}
    assert chosen(waiting, Limits(12, 12, 12), *busy) == {(A, "a"): 1, (B, "b"): 4, (C, "c"): 4}


def test_tenants_whose_webhooks_end_at_once_take_turns() -> None:
    """None has any under way when slots are given out. The oldest backlog would have them all for long."""
    waiting = due(A, "a", 0, 9) + due(B, "b", 100, 9) + due(C, "c", 200, 9)
    round_, turns = Round(), []
    for _ in range(4):
        turns.append([each.tenant_id for each in choose(waiting, Load([], Limits(2, 2, 2)), round_)])
        round_.ends(turns[-1])
    assert turns == [[A, B], [C, A], [B, C], [A, B]]


def test_of_a_tenant_the_oldest_go_first() -> None:
    waiting = due(A, "late", 100, 5) + due(A, "early", 0, 2)
    assert chosen(waiting, Limits(3, 3, 3)) == {(A, "early"): 2, (A, "late"): 1}


def test_a_full_host_is_passed_over() -> None:
    waiting = due(A, "full", 0, 100) + due(A, "other", 200, 4)
    assert chosen(waiting, Limits(64, 32, 2), UnderWay(B, "full")) == {(A, "full"): 1, (A, "other"): 2}


def test_a_tenant_who_finds_a_host_taken_gets_its_next_one() -> None:
    """Both would have the host's last slot."""
    waiting = due(A, "both", 0, 2) + due(B, "both", 1, 2) + due(B, "own", 50)
    assert chosen(waiting, Limits(64, 32, 1)) == {(A, "both"): 1, (B, "own"): 1}


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from("xyz")), max_size=40),
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from("xyz")), max_size=20),
    st.tuples(st.integers(1, 20), st.integers(1, 12), st.integers(1, 8)),
)
def test_no_limit_is_overstepped_and_no_slot_left_that_could_be_used(
    waiting: list[tuple[UUID, str]], under_way: list[tuple[UUID, str]], limits: tuple[int, int, int]
) -> None:
    bounds = Limits(*limits)
    found = [Due(tenant, UUID(int=number), host, START) for number, (tenant, host) in enumerate(waiting)]
    load = Load([UnderWay(*each) for each in under_way], bounds)
    taken = choose(found, load, Round())
    of_tenant = Counter(tenant for tenant, _ in under_way)
    of_host = Counter(host for _, host in under_way)
    for each in taken:
        of_tenant[each.tenant_id] += 1
        of_host[each.receiver_host] += 1
        assert of_tenant[each.tenant_id] <= bounds.per_tenant
        assert of_host[each.receiver_host] <= bounds.per_host
        assert of_tenant.total() <= bounds.total
    assert len(set(taken)) == len(taken)
    for each in set(found) - set(taken):
        assert (
            of_tenant.total() >= bounds.total
            or of_tenant[each.tenant_id] >= bounds.per_tenant
            or of_host[each.receiver_host] >= bounds.per_host
        )


def test_a_tenant_is_hindered_if_full_hosts_keep_it_from_its_share() -> None:
    load = Load([UnderWay(A, "full")] * 4, Limits(64, 8, 4))
    assert is_hindered(due(A, "full", 0, 9), load)
    assert is_hindered(due(A, "full", 0, 1) + due(A, "other", 1, 3), load)
    assert not is_hindered(due(A, "full", 0, 1) + due(A, "other", 1, 4), load), "it has its share all the same"
    assert not is_hindered(due(A, "other", 0, 2), load), "no host is in the way"


def test_a_round_is_idle_if_all_was_looked_at_and_nothing_found() -> None:
    round_ = Round()
    for is_end, found_something, is_idle in (
        (True, True, False), (True, False, True), (False, False, False), (True, False, True), (False, True, False),
        (True, False, False), (True, False, True),
    ):  # fmt: skip
        round_.reached_tenant(A, is_end=is_end)
        assert round_.tenant == (UUID(int=0) if is_end else A)
        assert round_.ends([A] if found_something else []) is is_idle


def test_a_round_that_left_hosts_out_is_not_idle() -> None:
    round_ = Round()
    round_.reached_tenant(A, is_end=True)
    round_.reached_host(A, "m", is_end=False)
    assert not round_.ends([])
    assert (round_.host_of(A), round_.host_of(B)) == ("m", "")
    round_.reached_host(A, "z", is_end=True)
    assert round_.ends([])
    assert round_.host_of(A) == ""


def test_places_among_hosts_are_not_remembered_without_end() -> None:
    round_ = Round()
    for number in range(TENANTS_REMEMBERED + 5):
        round_.reached_host(UUID(int=number), "m", is_end=False)
    assert round_.host_of(UUID(int=4)) == ""
    assert round_.host_of(UUID(int=5)) == "m"
