"""The same scenario with the same seed is the same again: its whole timeline, ids and times aside, on any process."""

import http.client
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import cycle
from typing import Any

import pytest

from tests.support.processes import Gateway, wait_until
from tests.support.wire import Arrived, Wire

# A bit of everything that is left to chance, so that each run has much to differ in.
SCENARIO = """
name = "bad_day"
teaches = "Whether chance can be repeated."

[[faults]]
fault = "lost_response"
operation = "create"
probability = 0.3

[[faults]]
fault = "error; status=503"
probability = 0.2

[[faults]]
fault = "latency; median=0.005; p99=0.05"
operation = "simulate"
probability = 0.6

[[faults]]
fault = "drop; attempts=2"
probability = 0.3

[[faults]]
fault = "duplicate; copies=2"
probability = 0.4

[[faults]]
fault = "delay; seconds=0.01-0.2"
event = "payment.success"
probability = 0.8
"""
ORDERS = 5
"""The velocity rule would flag more."""
TRIES_MAX = 20
IDS_AND_TIMES = ("at", "payment_id", "request_id", "delivery_id", "duration_milliseconds")

Entry = dict[str, Any]


@pytest.fixture
def wire() -> Iterator[Wire]:
    opened = Wire()
    yield opened
    opened.close()


def test_the_same_seed_has_the_same_timeline_on_one_process_and_on_two(gateways: list[Gateway], wire: Wire) -> None:
    wire.decide = refuse_first_attempts
    one, two = [run(gateways[:1], wire, f"one-{number}@example.com", seed=7) for number in range(2)]
    on_both = run(gateways, wire, "both@example.com", seed=7)
    assert one == two == on_both
    kinds = Counter(entry["fault"].partition(";")[0] for entry in one if entry.get("fault"))
    assert set(kinds) == {"lost_response", "error", "latency", "drop", "duplicate", "delay"}


def refuse_first_attempts(arrived: Arrived) -> int:
    return 500 if arrived.headers["x-mockpay-attempt"] == "1" else 200


def run(gateways: list[Gateway], wire: Wire, email: str, *, seed: int) -> list[Entry]:
    """The timeline of a shop's day. Each request is of a connection of its own, to the next process in turn."""
    first = gateways[0]
    api_key = first.register(email)["api_key"]
    ran = first.client.post("/api/scenarios/run", json={"file": SCENARIO, "seed": seed})
    assert ran.json()["seed"] == seed
    turn = cycle(gateways)

    def post(path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        for _ in range(TRIES_MAX):
            answer = ask(next(turn), api_key, path, key, body)
            if answer:
                return answer
        raise AssertionError(f"{key}: no answer")

    for number in range(ORDERS):
        body = {"amount": 20, "currency": "EUR", "webhook_url": wire.url}
        payment = post("/api/payments", f"order-{number}", body)
        post(f"/api/payments/{payment['id']}/simulate", f"order-{number} pay", {"status": "success"})
        wait_until(lambda: is_quiet(first))
    rules = {fault["id"]: place for place, fault in enumerate(ran.json()["faults"])}
    return [comparable(entry, rules) for entry in whole_timeline(first, api_key)]


def ask(gateway: Gateway, api_key: str, path: str, key: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """None where there was no answer, or one that says to try again."""
    url = gateway.client.base_url
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json", "Idempotency-Key": key}
    with closing(http.client.HTTPConnection(url.host, url.port, timeout=10)) as connection:
        try:
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except ConnectionResetError:
            return None
    return answer if response.status < 500 else None


def is_quiet(gateway: Gateway) -> bool:
    """By the operator's figures: a tenant's own question would be in its timeline."""
    found = re.search(r"^mockpay_webhook_queue_depth (\S+)", gateway.client.get("/metrics").text, re.MULTILINE)
    assert found
    return float(found[1]) == 0


def whole_timeline(gateway: Gateway, api_key: str) -> list[Entry]:
    entries: list[Entry] = []
    cursor: dict[str, str] = {}
    while True:
        page = gateway.client.get(
            "/api/timeline", params={"limit": 7, **cursor}, headers={"Authorization": f"Bearer {api_key}"}
        ).json()
        entries += page["data"]
        if not page["has_more"]:
            return entries
        cursor = {"cursor": page["next_cursor"]}


def comparable(entry: Entry, rules: dict[str, int]) -> Entry:
    kept = {name: value for name, value in entry.items() if name not in IDS_AND_TIMES}
    if "path" in kept:
        kept["path"] = re.sub("[0-9a-f-]{36}", "…", kept["path"])
    if kept.get("fault_rule"):
        kept["fault_rule"] = rules[kept["fault_rule"]]
    return kept
