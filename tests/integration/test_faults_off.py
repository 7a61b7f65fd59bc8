"""Where faults are off whoever asks for one is told so, and nothing suffers one, also by what was asked for before."""

from typing import Any

import httpx
import msgspec
import pytest

from mockpay.faults import service as faults
from mockpay.faults.requests import CreateFault, FaultText
from mockpay.settings import Settings
from mockpay.webhooks.signing import sign_with_all
from tests.integration.conftest import open_client
from tests.support.fakes import Receiver
from tests.support.gateway import Gateway, register

BUSY = "error; status=503; code=busy"
PAYMENT = {"amount": 5, "currency": "USD"}


def production(**changes: Any) -> Settings:
    return Settings(env="production", rate_limit_tier="unlimited", **changes)


def off(response: httpx.Response) -> bool:
    if response.status_code != 403:
        return False
    error = response.json()
    assert "MOCKPAY_FAULTS=on" in error["error"]
    assert "X-MockPay-Fault" not in response.headers
    return bool(error["code"] == "faults_off")


@pytest.mark.parametrize(("settings", "are_on"), [
    (Settings(rate_limit_tier="unlimited"), True), (Settings(rate_limit_tier="unlimited", faults="off"), False),
    (production(), False), (production(faults="on"), True),
])  # fmt: skip
async def test_on_in_development_and_off_in_production_unless_set(
    database_url: str, settings: Settings, are_on: bool
) -> None:
    async with open_client(database_url, settings) as client:
        await register(client)
        answers = [
            await client.get("/api/payments", headers={"X-MockPay-Fault": "latency; seconds=0"}),
            await client.post("/api/faults", json={"fault": "latency; seconds=0"}),
            await client.post("/api/scenarios/run", json={"name": "lost_response"}),
        ]
        assert [off(answer) for answer in answers] == [not are_on] * 3
        assert [answer.is_success for answer in answers] == [are_on] * 3


async def test_a_fault_that_is_asked_for_is_refused_and_nothing_done(database_url: str) -> None:
    """By each way to a route, and whether it can be read or not: the test that sent it would pass for no reason."""
    async with open_client(database_url, production()) as client:
        await register(client)
        for number, (path, fault) in enumerate((
            ("/api/payments", "lost_response"), ("/api/payments/", "malformed"), ("/api/payments", "explode"),
        )):  # fmt: skip
            headers = {"Idempotency-Key": f"k{number}", "X-MockPay-Fault": fault}
            assert off(await client.post(path, json=PAYMENT, headers=headers))
        assert (await client.get("/api/payments")).json()["total"] == 0
        assert (await client.get("/health", headers={"X-MockPay-Fault": "reset"})).status_code == 200
        client.headers["Authorization"] = ""
        assert (await client.get("/api/payments", headers={"X-MockPay-Fault": "reset"})).status_code == 401


async def test_rules_of_another_time_do_nothing_and_can_be_ended(
    database_url: str, client: httpx.AsyncClient, api_key: str
) -> None:
    rule = (await client.post("/api/faults", json={"fault": BUSY, "times": 1})).json()
    async with open_client(database_url, production()) as quiet:
        quiet.headers["Authorization"] = f"Bearer {api_key}"
        assert (await quiet.get("/api/payments")).status_code == 200
        assert (await quiet.get("/api/faults")).json() == {"total": 1, "faults": [rule]}, "it was not asked"
        assert (await client.get("/api/payments")).status_code == 503, "where they are on it is as it was"
        assert (await quiet.delete(f"/api/faults/{rule['id']}")).status_code == 204
        await client.post("/api/faults", json={"fault": BUSY})
        assert (await quiet.delete("/api/faults")).status_code == 204
        assert (await quiet.get("/api/faults")).json()["total"] == 0


@pytest.mark.parametrize("fault", ["drop; attempts=3", "duplicate; copies=3", "bad_signature", "mutated_body"])
async def test_a_webhook_with_a_fault_of_another_time_is_sent_as_it_should_be(
    gateway: Gateway, receiver: Receiver, superuser: Any, fault: str
) -> None:
    gateway.tenant = msgspec.structs.replace(gateway.tenant, has_faults=True)
    await faults.create(gateway.context, gateway.tenant, CreateFault(FaultText(fault)))
    await gateway.succeeded("k")
    assert await superuser.fetchval("SELECT fault FROM webhook_deliveries") is not None
    assert await gateway.worker(faults="off").run_due() == 1
    [received] = receiver.received
    payload = await superuser.fetchval("SELECT payload FROM webhook_deliveries WHERE status = 'delivered'")
    assert received.body.decode() == payload
    assert await superuser.fetchval("SELECT fault FROM delivery_attempts") is None


async def test_such_a_webhook_is_signed_as_it_should_be(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    gateway.tenant = msgspec.structs.replace(gateway.tenant, has_faults=True)
    await faults.create(gateway.context, gateway.tenant, CreateFault(FaultText("bad_signature; attempts=3")))
    await gateway.succeeded("k")
    await gateway.worker(faults="off").run_due()
    [received] = receiver.received
    secret = await superuser.fetchval("SELECT secret FROM webhook_secrets")
    assert received.headers["X-MockPay-Signature"] == sign_with_all(received.body, [secret])
