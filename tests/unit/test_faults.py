"""How the header is read, and when rules fire."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockpay.errors import InvalidRequest
from mockpay.fault_text import fixed
from mockpay.faults.model import HEADER, Effect, Injection, LostAs, parse
from mockpay.faults.rules import Asking, Counted, Operation, Rule, Target, operation_of
from tests.support.fakes import START

TENANT, OTHER = uuid4(), uuid4()


@pytest.mark.parametrize(("header", "injection"), [
    ("reset", Injection(effect=Effect.RESET)), (" latency ; seconds = 1.5 ", Injection(effect=Effect.LATENCY, wait=fixed(1.5))),
    ("error; status=503; code=busy", Injection(effect=Effect.ERROR, status=503, code="busy")),
    ("lost_response", Injection(effect=Effect.LOST_RESPONSE, lost_as=LostAs.RESET)),
    ("lost_response;as=error;status=502", Injection(effect=Effect.LOST_RESPONSE, lost_as=LostAs.ERROR, status=502)),
])  # fmt: skip
def test_what_is_asked_for(header: str, injection: Injection) -> None:
    assert parse(header) == injection


@pytest.mark.parametrize("header", [
    "", "explode", "reset; status=500", "latency; seconds=301", "latency; seconds=-1", "latency; seconds=1e3",
    "latency; seconds", "error; status=200", "error; status=5000", "error; code=No", "lost_response; as=smoke",
    "error; status=503, code=busy", "reset;", "latency; seconds=4-1", "latency; seconds=1-", "latency; median=1",
    "latency; seconds=1; p99=2; median=1", "latency; median=2; p99=1", "latency; median=0; p99=1", "latency; seconds=1; seconds=2",
    "reset; seed=1", "bad_signature", "latency; seconds=0.0001",
])  # fmt: skip
def test_what_is_no_fault(header: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(header)
    [fault] = raised.value.details
    assert fault.field == HEADER
    assert fault.message


@pytest.mark.parametrize(("text", "least", "most"), [
    ("latency", 2, 2), ("latency; seconds=0.5-4", 0.5, 4), ("latency; median=0.2; p99=3", 0, 300), ("latency; seed=9; seconds=1-1", 1, 1),
])  # fmt: skip
def test_a_latency_is_drawn_from_its_seed(text: str, least: float, most: float) -> None:
    seconds = [parse(text).drawn(seed, "x").seconds for seed in range(300)]
    assert least <= min(seconds) <= max(seconds) <= most
    assert seconds == [parse(text).drawn(seed, "x").seconds for seed in range(300)]
    assert len(set(seconds)) == 1 if least == most else len(set(seconds)) > 200


def test_a_long_tail_has_the_median_and_the_percentile_that_were_asked_for() -> None:
    seconds = sorted(parse("latency; median=0.2; p99=3").drawn(seed, "x").seconds for seed in range(4000))
    assert abs(seconds[2000] - 0.2) < 0.02
    assert 2 < seconds[3960] < 4.5


def test_an_answer_tells_what_was_drawn() -> None:
    drawn = parse("latency; seconds=1-2; seed=7").drawn(5, "x")
    assert str(drawn) == f"latency; seconds={drawn.seconds:g}; seed=7"
    assert str(parse("latency; seconds=1-2").drawn(5, "x")).endswith("; seed=5")
    assert str(parse("latency; seconds=1").drawn(5, "x")) == "latency; seconds=1"
    assert parse(str(drawn)) == drawn


@pytest.mark.parametrize("text", [
    "reset", "error; status=503; code=busy", "lost_response", "lost_response; as=timeout", "lost_response; as=error; status=502",
])  # fmt: skip
def test_a_fault_is_told_as_it_is_spelled(text: str) -> None:
    assert str(parse(text)) == text


@given(st.integers(0, 300_000), st.integers(0, 300_000))
def test_every_time_reads_as_it_is_told(one: int, other: int) -> None:
    least, most = sorted((one / 1000, other / 1000))
    drawn = parse(f"latency; seconds={least:.3f}-{most:.3f}").drawn(5, "x")
    assert parse(str(drawn)).seconds == drawn.seconds


@given(st.text())
def test_any_text_is_read_or_refused(header: str) -> None:
    try:
        parse(header)
    except InvalidRequest as error:
        assert len(error.details) == 1


def rule(**fields: Any) -> Rule:
    columns: dict[str, Any] = {
        "target": Target.REQUEST, "operation": None, "event": None, "fault": "reset", "times": None, "every": None, "probability": None, "seed": 1,
        "created_at": START,
    }  # fmt: skip
    return Rule(id=uuid4(), matched=0, fired=0, **columns | fields)


def fired(count: int, *rules: Rule) -> list[int]:
    """Of so many requests, one after the other, those that failed, counted from 1."""
    asking = Asking({TENANT: rules})
    return [number for number in range(1, count + 1) if asking.about(TENANT, Operation.CREATE)]


def test_when_rules_fire() -> None:
    assert fired(5, rule()) == [1, 2, 3, 4, 5]
    assert fired(5, rule(times=2)) == [1, 2]
    assert fired(7, rule(every=3)) == [3, 6]
    assert fired(5, rule(probability=Decimal(0))) == []
    assert fired(5, rule(probability=Decimal(1))) == [1, 2, 3, 4, 5]


def test_chance_is_repeatable_and_kept_to() -> None:
    first = fired(2000, rule(probability=Decimal("0.25"), seed=7))
    assert first == fired(2000, rule(probability=Decimal("0.25"), seed=7))
    assert first != fired(2000, rule(probability=Decimal("0.25"), seed=8))
    assert abs(len(first) / 2000 - 0.25) < 0.04


def test_rules_behind_the_one_that_fires_are_not_asked() -> None:
    first, second = rule(times=2), rule(every=2, created_at=START + timedelta(seconds=1))
    assert fired(6, first, second) == [1, 2, 4, 6]


def test_only_rules_about_it_are_asked_and_count() -> None:
    every, creates, refunds = (
        rule(probability=Decimal(0)),
        rule(operation=Operation.CREATE),
        rule(operation=Operation.REFUND),
    )
    asking = Asking({TENANT: [every, creates, refunds], OTHER: [rule()]})
    fired = asking.about(TENANT, Operation.CREATE)
    assert fired is not None
    assert (fired.id, fired.matched, fired.fired) == (creates.id, 1, 1)
    assert asking.about(TENANT, Operation.LIST) is None
    assert asking.counted == [
        Counted(tenant_id=TENANT, rule_id=every.id, matched_before=0, matched=2, fired=0),
        Counted(tenant_id=TENANT, rule_id=creates.id, matched_before=0, matched=1, fired=1),
    ]


@pytest.mark.parametrize(("method", "path", "operation"), [
    ("POST", "/api/payments", "create"), ("GET", "/api/payments", "list"), ("GET", "/api/payments/x", "get"),
    ("PATCH", "/api/payments/x", "change"), ("POST", "/api/payments/x/simulate", "simulate"),
    ("POST", "/api/payments/x/refund", "refund"), ("GET", "/api/payments/x/audit", "audit"),
    ("GET", "/api/payments/x/deliveries", "deliveries"), ("DELETE", "/api/payments", None), ("GET", "/api/faults", None),
    ("DELETE", "/api/faults/x", None), ("GET", "/api/auth/me", None),
])  # fmt: skip
def test_operations(method: str, path: str, operation: str | None) -> None:
    assert operation_of(method, path) == operation
