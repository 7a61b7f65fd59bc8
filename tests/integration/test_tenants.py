"""What a tenant may change: its key, its webhook secret, its default URL."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from mockpay.settings import Settings
from mockpay.tenants import service as tenants
from mockpay.tenants.model import Email, Registration
from mockpay.webhooks.signing import sign, sign_standard, sign_with_all
from tests.integration.conftest import open_client
from tests.support.fakes import Receiver
from tests.support.gateway import Gateway, bearer

BODY = {"amount": 50, "currency": "USD"}


async def test_a_rotated_key_is_dead_at_once_on_every_process(
    client: httpx.AsyncClient, api_key: str, database_url: str
) -> None:
    async with open_client(database_url, Settings(rate_limit_tier="unlimited")) as other:
        other.headers["Authorization"] = f"Bearer {api_key}"
        assert (await other.get("/api/auth/me")).status_code == 200
        rotated = await client.post("/api/auth/rotate-key")
        new_key = rotated.json()["api_key"]
        assert set(rotated.json()) == {"message", "tenant_id", "api_key", "instructions"}
        for each in (client, other):
            assert (await each.get("/api/auth/me")).json()["code"] == "unauthorized"
            me = await each.get("/api/auth/me", headers=bearer(new_key))
            assert me.json()["api_key"] == new_key


@pytest.mark.usefixtures("api_key")
async def test_of_racing_rotations_one_wins(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.post("/api/auth/rotate-key") for _ in range(10)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 401: 9}
    [new_key] = [answer.json()["api_key"] for answer in answers if answer.status_code == 200]
    assert (await client.get("/api/auth/me", headers=bearer(new_key))).status_code == 200


@pytest.mark.usefixtures("api_key")
async def test_a_rotated_webhook_secret_has_a_grace_period_of_a_day(client: httpx.AsyncClient) -> None:
    before = (await client.get("/api/auth/me")).json()["webhook_secret"]
    rotated = (await client.post("/api/auth/rotate-webhook-secret")).json()
    assert set(rotated) == {"message", "tenant_id", "webhook_secret", "previous_expires_at", "instructions"}
    grace = datetime.fromisoformat(rotated["previous_expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < grace <= timedelta(hours=24, minutes=1)
    after = (await client.get("/api/auth/me")).json()["webhook_secret"]
    assert after == rotated["webhook_secret"] != before


@pytest.mark.parametrize("settings", [Settings(rate_limit_tier="unlimited", webhook_secret_grace_seconds=0)])
async def test_without_a_grace_period_the_old_secret_stops_at_once(
    gateway: Gateway, client: httpx.AsyncClient, credentials: Any
) -> None:
    await gateway.succeeded("k")
    rotated = await client.post("/api/auth/rotate-webhook-secret", headers=bearer(credentials.api_key))
    await gateway.worker().run_due()
    [received] = gateway.receiver.received
    assert received.headers["X-MockPay-Signature"] == sign(received.body, rotated.json()["webhook_secret"])


@pytest.mark.usefixtures("api_key")
async def test_racing_rotations_of_the_secret_leave_one_current_and_one_that_expires(
    client: httpx.AsyncClient, superuser: Any
) -> None:
    answers = await asyncio.gather(*(client.post("/api/auth/rotate-webhook-secret") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    live = await superuser.fetch(
        "SELECT expires_at FROM webhook_secrets WHERE expires_at IS NULL OR expires_at > now()"
    )
    assert Counter(row["expires_at"] is None for row in live) == {True: 1, False: 1}
    assert await superuser.fetchval("SELECT count(*) FROM webhook_secrets") == 2, "what is over is not kept"


@pytest.mark.parametrize("grace_seconds", [86_400, 0])
async def test_a_tenant_has_two_secrets_however_often_it_rotates(
    gateway: Gateway, superuser: Any, grace_seconds: int
) -> None:
    """Or each claim of a webhook would read all of them. Another tenant's stay as they are."""
    settings = replace(gateway.context.settings, webhook_secret_grace_seconds=grace_seconds)
    context = replace(gateway.context, settings=settings)
    other = await tenants.register(context, Registration("Other", Email("other@example.com")))
    await tenants.rotate_webhook_secret(context, other.tenant)
    secrets = [(await tenants.rotate_webhook_secret(context, gateway.tenant))[0] for _ in range(12)]
    kept = "SELECT secret FROM webhook_secrets WHERE tenant_id = $1 ORDER BY expires_at DESC NULLS FIRST"
    assert [row["secret"] for row in await superuser.fetch(kept, gateway.tenant.id)] == [secrets[-1], secrets[-2]]
    assert len(await superuser.fetch(kept, other.tenant.id)) == 2


async def test_during_a_rotation_both_secrets_sign(gateway: Gateway, receiver: Receiver, superuser: Any) -> None:
    """Two at most, in both schemes, the newest first; and only until the grace period ends."""
    secrets = [await tenants.webhook_secret(gateway.context, gateway.tenant)]
    for _ in range(2):
        secrets.append((await tenants.rotate_webhook_secret(gateway.context, gateway.tenant))[0])
    for key, live in (("k", [secrets[2], secrets[1]]), ("k2", [secrets[2]])):
        await gateway.succeeded(key)
        await gateway.worker().run_due()
        received = receiver.received[-1]
        timestamp = int(received.headers["webhook-timestamp"])
        standard = sign_standard(received.body, received.headers["webhook-id"], timestamp, live)
        assert received.headers["X-MockPay-Signature"] == sign_with_all(received.body, live)
        assert received.headers["webhook-signature"] == standard
        await superuser.execute("UPDATE webhook_secrets SET expires_at = now() WHERE expires_at IS NOT NULL")


@pytest.mark.usefixtures("api_key")
async def test_the_default_url_gets_the_webhooks_of_payments_without_one(
    client: httpx.AsyncClient, superuser: Any
) -> None:
    default, own = "http://127.0.0.1:9/default", "http://127.0.0.1:9/own"
    assert (await client.patch("/api/auth/me", json={"webhook_url": default})).json()["webhook_url"] == default
    assert (await client.get("/api/auth/me")).json()["webhook_url"] == default
    for number, url in enumerate((None, own)):
        headers = {"Idempotency-Key": f"k{number}"}
        payment = (await client.post("/api/payments", json={**BODY, "webhook_url": url}, headers=headers)).json()
        assert payment["webhook_url"] == url  # the default is the tenant's, and not written into its payments
        await client.post(f"/api/payments/{payment['id']}/simulate", json={"status": "success"})
    urls = await superuser.fetch("SELECT url FROM webhook_deliveries ORDER BY created_at, id")
    assert [row["url"] for row in urls] == [default, own]
    assert (await client.patch("/api/auth/me", json={"webhook_url": None})).json()["webhook_url"] is None


@pytest.mark.parametrize(("body", "faulty"), [
    ({}, "webhook_url"), ({"webhook_url": "ftp://x"}, "webhook_url"), ({"webhook_url": 1}, "webhook_url"),
    ({"webhook_url": None, "name": "x"}, "name"),
])  # fmt: skip
async def test_wrong_preferences(shared_client: httpx.AsyncClient, body: dict[str, Any], faulty: str) -> None:
    response = await shared_client.patch("/api/auth/me", json=body)
    assert [fault["field"] for fault in response.json()["details"]] == [faulty]


@pytest.mark.parametrize("settings", [Settings(env="production", rate_limit_tier="unlimited")])
@pytest.mark.usefixtures("api_key")
async def test_in_production_no_url_leads_into_the_private_network(client: httpx.AsyncClient) -> None:
    """By whichever way it comes in, and however it is spelled."""
    create = {"Idempotency-Key": "k"}
    payment_id = (await client.post("/api/payments", json=BODY, headers=create)).json()["id"]
    for host in ("127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "0x7f.1", "[::1]", "[::ffff:10.0.0.1]", "127.1"):
        body = {"webhook_url": f"http://{host}/hook"}
        answers = [
            await client.post("/api/payments", json={**BODY, **body}, headers={"Idempotency-Key": host}),
            await client.patch(f"/api/payments/{payment_id}", json=body),
            await client.patch("/api/auth/me", json=body),
        ]
        assert [answer.status_code for answer in answers] == [400] * 3, host
        assert {answer.json()["details"][0]["field"] for answer in answers} == {"webhook_url"}
