"""Scenarios through the API: run by name or by file, in place of the faults that were, and repeatable."""

from typing import Any

import httpx
import pytest

from mockpay.scenarios.ready import FILES
from mockpay.scenarios.requests import FILE_LENGTH_MAX
from tests.support.gateway import register

TOML = {"Content-Type": "application/toml"}

pytestmark = pytest.mark.usefixtures("api_key")


async def run(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/api/scenarios/run", json=body)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def statuses(client: httpx.AsyncClient, count: int) -> list[int]:
    return [(await client.get("/api/payments")).status_code for _ in range(count)]


async def test_each_can_be_run_and_takes_the_place_of_what_was(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/api/scenarios")).json()
    assert listed["total"] == len(listed["scenarios"]) == 8
    await client.post("/api/faults", json={"fault": "error"})
    for scenario in listed["scenarios"]:
        ran = await run(client, name=scenario["name"])
        assert ran["teaches"] == scenario["teaches"]
        assert (await client.get("/api/faults")).json()["faults"] == ran["faults"]
    assert (await client.delete("/api/faults")).status_code == 204
    assert await statuses(client, 1) == [200]


async def test_both_ways_to_send_a_file_are_documented_with_their_limit(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    [text, _] = document["components"]["schemas"]["RunScenario"]["properties"]["file"]["oneOf"]
    content = document["paths"]["/api/scenarios/run"]["post"]["requestBody"]["content"]
    assert text == content["application/toml"]["schema"] == {"type": "string", "maxLength": FILE_LENGTH_MAX}
    for body in (b"x" * (FILE_LENGTH_MAX + 1), "é".encode() * (FILE_LENGTH_MAX + 1)):
        refused = await client.post("/api/scenarios/run", content=body, headers=TOML)
        assert "8192 characters" in refused.json()["error"]


async def test_an_outage_and_its_end(client: httpx.AsyncClient) -> None:
    for _ in range(2):  # from its beginning each time
        await run(client, name="outage_and_recovery")
        assert await statuses(client, 7) == [503] * 5 + [200] * 2


async def test_a_seed_makes_it_the_same_again(client: httpx.AsyncClient) -> None:
    file = 'name = "coin"\nteaches = "x"\n[[faults]]\nfault = "error"\nprobability = 0.5\n'
    first = await run(client, file=file)
    seen = await statuses(client, 25)
    assert set(seen) == {200, 500}
    await register(client, "other@example.com")
    again = await run(client, file=file, seed=first["seed"])
    assert [fault["seed"] for fault in again["faults"]] == [fault["seed"] for fault in first["faults"]]
    assert await statuses(client, 25) == seen
    assert (await run(client, file=f"seed = 11\n{file}"))["seed"] == 11
    assert (await run(client, file=f"seed = 11\n{file}", seed=0))["seed"] == 0


async def test_a_file_may_be_sent_as_it_is(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/scenarios/run", content=FILES["lost_response"].encode(), headers=TOML)
    assert (response.status_code, response.json()["name"]) == (201, "lost_response")
    for content, field in (
        (b"\xff", "file"),
        (b"x = ", "file"),
        (b"x = 1", "file.name"),
        (b"a" * 8_193, "file"),
    ):
        refused = await client.post("/api/scenarios/run", content=content, headers=TOML)
        assert refused.status_code == 400, content[:10]
        assert field in {fault["field"] for fault in refused.json()["details"]}, refused.text
    assert len((await client.get("/api/faults")).json()["faults"]) == 1


@pytest.mark.parametrize(("body", "faulty"), [
    ({}, {"name"}), ({"name": "lost_response", "file": "x"}, {"name"}), ({"name": "unknown"}, {"name"}),
    ({"name": "Lost Response"}, {"name"}), ({"name": "lost_response", "seed": -1, "sed": 1}, {"seed", "sed"}), ({"file": "x"}, {"file"}),
    ({"name": ["lost_response"]}, {"name"}),
])  # fmt: skip
async def test_wrong_runs(client: httpx.AsyncClient, body: dict[str, Any], faulty: set[str]) -> None:
    response = await client.post("/api/scenarios/run", json=body)
    assert {fault["field"] for fault in response.json()["details"]} == faulty
