"""What is remembered of counts gives the verdict that counting anew would give, whatever happened meanwhile."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from mockpay.payments.velocity import Count, Memory

TENANT, RULE = UUID(int=1), UUID(int=2)
WINDOW = 10
START = datetime(2026, 1, 31, tzinfo=UTC)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.integers(1, 4)),
        st.tuples(st.just("elsewhere"), st.integers(1, 4)),
        st.tuples(st.just("fail"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("clock set back"), st.integers(1, 12)),
    ),
    max_size=30,
)


class World:
    """A tenant's payments, and a process that decides by what it remembers."""

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self.now = START
        self.creations = 0
        self.payments: list[dict[str, Any]] = []
        self.memory = Memory()
        self.counted = 0

    def recent(self) -> list[dict[str, Any]]:
        """Newest first, as the database counts them."""
        since = self.now - timedelta(seconds=WINDOW)
        found = [each for each in self.payments if each["at"] > since and each["status"] != "failed"]
        return sorted(found, key=lambda each: each["at"], reverse=True)[: self.threshold]

    def add(self, count: int, is_flagged: bool) -> None:
        self.creations += count
        self.payments += [{"at": self.now, "status": "flagged" if is_flagged else "pending"} for _ in range(count)]

    def decide(self, batch: int) -> None:
        known = self.memory.known({TENANT: batch}, self.now)
        newest = self.recent()
        is_open = all(
            self.creations > each.creations_max and (each.too_many_until is None or self.now >= each.too_many_until)
            for each in known
        )
        if is_open:
            self.counted += 1
            settled = len(newest) >= self.threshold and all(each["status"] != "pending" for each in newest)
            count = Count(
                rule_id=RULE, version="1", threshold=self.threshold, window_secs=WINDOW, at=self.now,
                creations=self.creations, payments=len(newest), settled_since=newest[-1]["at"] if settled else None,
            )  # fmt: skip
            self.memory.keep(TENANT, [count], [RULE])
            recent = len(newest)
        else:
            recent = known[0].recent(self.creations)
        for place in range(batch):
            is_flagged = recent + place >= self.threshold
            assert is_flagged == (len(self.recent()) >= self.threshold)
            self.add(1, is_flagged)


@example([("create", 4), ("wait", 12), ("create", 2), ("clock set back", 12), ("create", 1)], 5)
@given(STEPS, st.integers(1, 8))
def test_what_is_remembered_decides_as_a_count_does(steps: list[tuple[str, int]], threshold: int) -> None:
    world = World(threshold)
    for what, number in steps:
        match what:
            case "create":
                world.decide(number)
            case "elsewhere":
                for _ in range(number):
                    world.add(1, len(world.recent()) >= threshold)
            case "fail":
                pending = [each for each in world.payments if each["status"] == "pending"]
                if pending:
                    pending[number % len(pending)]["status"] = "failed"
            case "wait":
                world.now += timedelta(seconds=number)
            case _:
                world.now -= timedelta(seconds=number)


def test_far_from_the_threshold_nothing_is_counted() -> None:
    world = World(1_000_000)
    for _ in range(100):
        world.decide(10)
    assert world.counted == 1


def test_far_beyond_the_threshold_nothing_is_counted() -> None:
    world = World(5)
    for _ in range(100):
        world.decide(1)
        world.now += timedelta(milliseconds=1)
    assert world.counted < 12


def test_a_rule_that_is_gone_is_forgotten() -> None:
    memory, other = Memory(), UUID(int=3)
    count = Count(
        rule_id=RULE, version="1", threshold=5, window_secs=WINDOW, at=START, creations=0, payments=0,
    )  # fmt: skip
    memory.keep(TENANT, [count], [RULE])
    memory.keep(TENANT, [], [other])
    assert memory.known({TENANT: 1}, START) == []


def test_the_memory_has_an_end() -> None:
    memory = Memory(tenants_max=2)
    count = Count(rule_id=RULE, version="1", threshold=5, window_secs=WINDOW, at=START, creations=0, payments=0)
    for number in range(3):
        memory.keep(UUID(int=number), [count], [RULE])
    assert [each.tenant_id.int for each in memory.known({UUID(int=n): 1 for n in range(3)}, START)] == [1, 2]
