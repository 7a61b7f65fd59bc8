"""Faults by rules of a tenant: for its own requests, exact over processes, in a documented order."""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import pytest

from mockpay.settings import Settings
from tests.integration.conftest import open_client
from tests.support.gateway import register
from tests.support.logs import captured_logs
from tests.support.waiting import until_blocked

BUSY = "error; status=503; code=busy"

pytestmark = pytest.mark.usefixtures("api_key")


async def add(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post("/api/faults", json={"fault": BUSY, **fields})
    assert response.status_code == 201, response.text
    rule: dict[str, Any] = response.json()
    return rule


async def statuses(client: httpx.AsyncClient, count: int, path: str = "/api/payments") -> list[int]:
    return [(await client.get(path)).status_code for _ in range(count)]


async def test_a_rule_from_its_making_to_its_end(client: httpx.AsyncClient) -> None:
    assert await statuses(client, 2) == [200, 200]
    rule = await add(client, operation="list", times=2)
    assert await statuses(client, 4) == [503, 503, 200, 200]
    assert (await client.get("/api/faults")).json() == {"total": 1, "faults": [rule | {"matched": 4, "fired": 2}]}
    answer = await client.post("/api/payments", json={"amount": 5, "currency": "USD"}, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 201  # another operation
    assert (await client.delete(f"/api/faults/{rule['id']}")).status_code == 204
    assert (await client.delete(f"/api/faults/{rule['id']}")).status_code == 404
    assert (await client.get("/api/faults")).json() == {"total": 0, "faults": []}


async def test_every_nth_and_always(client: httpx.AsyncClient) -> None:
    await add(client, every=3)
    assert await statuses(client, 6) == [200, 200, 503, 200, 200, 503]
    await add(client, fault="error; status=502")
    assert await statuses(client, 3) == [502, 502, 503]  # the older rule is asked first
    assert (await client.delete("/api/faults")).status_code == 204
    assert await statuses(client, 3) == [200] * 3


async def test_chance_is_repeatable(client: httpx.AsyncClient) -> None:
    rule = await add(client, probability=0.5)
    first = await statuses(client, 30)
    assert set(first) == {200, 503}
    await register(client, "other@example.com")
    assert await statuses(client, 3) == [200] * 3  # the rules of others are theirs
    await add(client, probability=0.5, seed=rule["seed"])
    assert await statuses(client, 30) == first


async def test_counts_are_exact_over_processes(client: httpx.AsyncClient, api_key: str, database_url: str) -> None:
    async with open_client(database_url, Settings(rate_limit_tier="unlimited")) as other:
        other.headers["Authorization"] = f"Bearer {api_key}"
        await add(client, times=7)
        answers = await asyncio.gather(*(each.get("/api/payments") for each in (client, other) for _ in range(20)))
        assert Counter(answer.status_code for answer in answers) == {503: 7, 200: 33}
        [rule] = (await other.get("/api/faults")).json()["faults"]
    assert (rule["matched"], rule["fired"]) == (40, 7)


async def test_rules_can_be_ended_while_they_are_asked(client: httpx.AsyncClient, superuser: Any) -> None:
    """Both lock all of them, in one order: neither waits for the other for ever."""
    await add(client, fault="latency; seconds=0", times=1)
    _, held, _ = [await add(client, probability=0) for _ in range(3)]
    await statuses(client, 1)  # counted by the first alone, whose row lies behind the others from now on
    await superuser.execute("ANALYZE fault_rules")  # known to be small, it is read as it lies
    async with superuser.transaction():
        await superuser.execute("SELECT FROM fault_rules WHERE id = $1 FOR UPDATE", held["id"])
        ending = asyncio.create_task(client.delete("/api/faults"))
        await until_blocked(superuser, 1)
        asking = asyncio.create_task(client.get("/api/payments"))
        await until_blocked(superuser, 2)
    assert ((await ending).status_code, (await asking).status_code) == (204, 200)


async def test_a_time_that_a_rule_drew_is_told_without_a_seed(client: httpx.AsyncClient) -> None:
    """The rule's would draw another time in a header. One that a header drew can be drawn again."""
    told = (await client.get("/api/payments", headers={"X-MockPay-Fault": "latency; seconds=0-0.01"})).headers
    again = (await client.get("/api/payments", headers=[("X-MockPay-Fault", f"latency; seconds=0-0.01; {told['X-MockPay-Fault'].rpartition('; ')[2]}")])).headers  # fmt: skip
    assert again["X-MockPay-Fault"] == told["X-MockPay-Fault"]
    await add(client, fault="latency; seconds=0-0.01")
    assert "seed" not in (await client.get("/api/payments")).headers["X-MockPay-Fault"]


async def test_the_header_goes_before_the_rules(client: httpx.AsyncClient) -> None:
    await add(client, times=1)
    answer = await client.get("/api/payments", headers={"X-MockPay-Fault": "error; status=500"})
    assert (answer.status_code, answer.headers["X-MockPay-Fault"]) == (500, "error")
    assert await statuses(client, 2) == [503, 200]  # it was not asked


async def test_what_ends_faults_can_not_be_made_to_fail(client: httpx.AsyncClient) -> None:
    await add(client)
    for path in ("/api/faults", "/api/auth/me", "/api/webhooks/deliveries"):
        assert await statuses(client, 1, path) == [200]


@pytest.mark.parametrize(("body", "faulty"), [
    ({}, {"fault"}), ({"fault": "explode"}, {"fault"}), ({"fault": "error; status=200"}, {"fault"}),
    ({"fault": "reset", "times": 1, "every": 2}, {"times", "every"}), ({"fault": "reset", "times": 0}, {"times"}),
    ({"fault": "reset", "probability": 2}, {"probability"}), ({"fault": "reset", "operation": "pay"}, {"operation"}),
    ({"fault": "reset", "seed": -1, "evry": 1}, {"seed", "evry"}),
])  # fmt: skip
async def test_wrong_rules(client: httpx.AsyncClient, body: dict[str, Any], faulty: set[str]) -> None:
    response = await client.post("/api/faults", json=body)
    assert {fault["field"] for fault in response.json()["details"]} == faulty


async def test_a_tenant_has_a_hundred_rules_at_most(client: httpx.AsyncClient, superuser: Any) -> None:
    await add(client, probability=0)
    await superuser.execute(
        "INSERT INTO fault_rules (tenant_id, id, target, fault, probability, seed, created_at) "
        "SELECT tenant_id, gen_random_uuid(), target, fault, 0, 1, created_at FROM fault_rules, generate_series(1, 99)"
    )
    response = await client.post("/api/faults", json={"fault": "reset"})
    assert response.json()["details"][0]["field"] == "fault"


async def test_the_log_line_names_the_fault_and_its_rule(client: httpx.AsyncClient) -> None:
    rule = await add(client, fault="latency; seconds=0")
    with captured_logs(json_lines=True) as output:
        await statuses(client, 1)
    logged = [json.loads(line) for line in output.getvalue().splitlines()]
    [line] = [line for line in logged if line["event"] == "request"]
    assert (line["fault"], line["fault_rule"], line["status"]) == ("latency; seconds=0", rule["id"], 200)


async def test_an_answer_without_a_body_has_none_to_spoil(client: httpx.AsyncClient) -> None:
    rule = await add(client, operation="get", times=1)
    answer = await client.delete(f"/api/faults/{rule['id']}", headers={"X-MockPay-Fault": "malformed"})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_without_rules_their_table_is_not_asked(client: httpx.AsyncClient, superuser: Any) -> None:
    """Faults cost nothing where none is set."""
    await superuser.execute("ALTER TABLE fault_rules RENAME TO away")
    assert await statuses(client, 1) == [200]
    await superuser.execute("ALTER TABLE away RENAME TO fault_rules")
    await add(client, probability=0)
    await superuser.execute("ALTER TABLE fault_rules RENAME TO away")
    assert await statuses(client, 1) == [500]
