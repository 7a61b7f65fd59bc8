"""Rate limits: what counts, for whom, what the headers say, and that the count is exact."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest

from mockpay.settings import Settings
from mockpay.tenants.admission import Presented, admit
from mockpay.tenants.gate import site_of
from tests.integration.conftest import ADMIN_KEY, open_client
from tests.support.gateway import bearer, register

LIMITED = Settings(rate_limit_standard=10, rate_limit_high=20, rate_limit_window_seconds=900, admin_key=ADMIN_KEY)
NAMES = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


def limit_headers(response: httpx.Response) -> tuple[int, int, int]:
    limit, remaining, reset = (int(response.headers[name]) for name in NAMES)
    return limit, remaining, reset


@pytest.fixture
def settings() -> Settings:
    return LIMITED


@pytest.mark.usefixtures("api_key")
async def test_every_request_counts_until_there_are_none_left(client: httpx.AsyncClient, superuser: Any) -> None:
    create = {"Idempotency-Key": "k"}
    requests = [
        client.get("/api/auth/me"),
        client.post("/api/payments", json={"amount": 5, "currency": "USD"}, headers=create),
        client.post("/api/payments", json={"amount": 5, "currency": "USD"}, headers=create),  # a replay
        client.post("/api/payments", json={}, headers=create),
        client.get("/api/payments/x"),
        client.get("/api/payments/01a208df-c0d9-756f-80ef-891a5ca24f1b"),
        client.get("/api/nowhere"),
        client.delete("/api/payments"),
        client.get("/api/admin/users"),
        client.post("/api/payments", content=b"x" * 300_000, headers=create),
    ]
    for used, request in enumerate(requests, 1):
        limit, remaining, reset = limit_headers(await request)
        assert (limit, remaining) == (10, 10 - used)
        assert 880 < reset <= 900
    refused = await client.post(
        "/api/payments", json={"amount": 6, "currency": "USD"}, headers={"Idempotency-Key": "n"}
    )
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert set(refused.json()) == {"error", "code", "request_id"}
    limit, remaining, reset = limit_headers(refused)
    assert (limit, remaining) == (10, 0)
    assert refused.headers["Retry-After"] == str(reset)
    assert await superuser.fetchval("SELECT count(*) FROM payments") == 1
    await superuser.execute("UPDATE rate_limits SET expires_at = now()")
    assert limit_headers(await client.get("/api/auth/me"))[:2] == (10, 9)


@pytest.mark.usefixtures("api_key")
async def test_what_is_not_the_api_does_not_count(client: httpx.AsyncClient) -> None:
    for path in ("/health", "/ready", "/docs", "/openapi.json", "/metrics", "/nowhere"):
        response = await client.get(path)
        assert not set(response.headers) & {name.lower() for name in NAMES}, path
    await client.options("/api/payments")
    assert limit_headers(await client.get("/api/auth/me"))[1] == 9


@pytest.mark.usefixtures("api_key")
async def test_no_spelling_of_a_path_goes_round_the_gate(client: httpx.AsyncClient) -> None:
    spellings = ["/api/auth/me", "//api/auth/me", "///api//auth/me/", "/api/auth/me/", "/%61pi/auth/me"]
    for used, path in enumerate(spellings, 1):
        response = await client.get(f"http://mockpay.test{path}")
        assert (response.status_code, limit_headers(response)[1]) == (200, 10 - used), path


async def test_the_count_is_exact_over_processes(database_url: str) -> None:
    async with open_client(database_url, LIMITED) as one, open_client(database_url, LIMITED) as other:
        key = await register(one)
        other.headers["Authorization"] = f"Bearer {key}"
        answers = await asyncio.gather(*(client.get("/api/auth/me") for client in (one, other) for _ in range(30)))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 50}
    remaining = [limit_headers(answer)[1] for answer in answers if answer.status_code == 200]
    assert sorted(remaining) == list(range(10))


@pytest.mark.usefixtures("api_key")
async def test_beyond_the_limit_there_are_no_faults_either(client: httpx.AsyncClient) -> None:
    for _ in range(10):
        assert (await client.get("/api/payments", headers={"X-MockPay-Fault": "error"})).status_code == 500
    refused = await client.get("/api/payments", headers={"X-MockPay-Fault": "error"})
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")


async def test_registration_is_limited_by_the_client_address(client: httpx.AsyncClient) -> None:
    emails = [f"tenant-{number}@example.com" for number in range(11)]
    statuses = [
        (await client.post("/api/auth/register", json={"name": "T", "email": email})).status_code for email in emails
    ]
    assert statuses == [201] * 10 + [429]


async def test_wrong_keys_count_for_the_address_and_never_for_a_tenant(client: httpx.AsyncClient, api_key: str) -> None:
    for _ in range(9):  # registering was the first
        assert (await client.get("/api/auth/me", headers=bearer("ab" * 32))).status_code == 401
    assert (await client.get("/api/auth/me", headers=bearer("ab" * 32))).status_code == 429
    assert (await client.get("/api/auth/me", headers=bearer(api_key))).status_code == 200


@pytest.mark.usefixtures("api_key")
async def test_a_tier_is_effective_from_the_next_request(client: httpx.AsyncClient) -> None:
    tenant_id = (await client.get("/api/auth/me")).json()["tenant_id"]
    for tier, limit, remaining in (("high", 20, 19), ("unlimited", 1_000_000_000, 1_000_000_000), ("standard", 10, 8)):
        path = f"/api/admin/users/{tenant_id}"
        changed = await client.patch(path, json={"rate_limit_tier": tier}, headers=bearer(ADMIN_KEY))
        assert changed.json()["rate_limit_tier"] == tier
        me = await client.get("/api/auth/me")
        assert me.json()["rate_limit_tier"] == tier
        # Each tier has a window of its own: the standard one was used once before, above.
        assert limit_headers(me)[:2] == (limit, remaining)


async def test_the_admin_is_not_limited(client: httpx.AsyncClient) -> None:
    for _ in range(12):
        response = await client.get("/api/admin/users", headers=bearer(ADMIN_KEY))
        assert response.status_code == 200
        assert limit_headers(response)[:2] == (1_000_000_000, 1_000_000_000)


@pytest.mark.parametrize(("address", "site"), [
    ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
    ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"), ("unknown", "unknown"),
])  # fmt: skip
def test_what_a_stranger_is_counted_by(address: str, site: str) -> None:
    assert site_of(address) == site


async def test_requests_that_are_counted_together_count_one_after_the_other(superuser: Any) -> None:
    settings = Settings(rate_limit_standard=3)
    strangers = [Presented(None, address) for address in ("a", "b", "a", "a", "a", "b")]
    found = await admit(superuser, settings, strangers)
    assert [(each.window.remaining, each.window.is_exceeded) for each in found] == [
        (2, False), (2, False), (1, False), (0, False), (0, True), (1, False),
    ]  # fmt: skip
    [again] = await admit(superuser, settings, [Presented(b"x" * 32, "b")])
    assert (again.tenant, again.window.remaining) == (None, 0)


@pytest.mark.parametrize("settings", [replace(LIMITED, rate_limit_standard=1, rate_limit_high=1, unlimited=True)])
async def test_the_setting_lifts_the_limit_of_every_tier_and_address(client: httpx.AsyncClient, superuser: Any) -> None:
    await register(client)
    me = (await client.get("/api/auth/me")).json()
    for tier in ("standard", "high", "unlimited"):
        changed = await client.patch(
            f"/api/admin/users/{me['tenant_id']}", json={"rate_limit_tier": tier}, headers=bearer(ADMIN_KEY)
        )
        assert changed.json()["rate_limit_tier"] == tier
        for headers in ({}, {"Authorization": "none"}, bearer("ab" * 32)):
            for _ in range(3):
                answer = await client.get("/api/auth/me", headers=headers)
                assert answer.status_code == (401 if headers else 200)
                assert limit_headers(answer) == (1_000_000_000, 1_000_000_000, 900)
    assert await superuser.fetchval("SELECT count(*) FROM rate_limits") == 0


@pytest.mark.parametrize("settings", [replace(LIMITED, rate_limit_standard=1, rate_limit_window_seconds=120)])
async def test_a_refusal_says_which_limit_it_was_and_what_lifts_it(client: httpx.AsyncClient) -> None:
    tenant_id = (await client.post("/api/auth/register", json={"name": "A", "email": "a@example.com"})).json()[
        "tenant_id"
    ]
    refused = await client.post("/api/auth/register", json={"name": "B", "email": "b@example.com"})
    for said in ("an address without a tenant may make 1 in 2 minutes in the tier standard", "MOCKPAY_RATE_LIMIT_STANDARD",
                 "MOCKPAY_RATE_LIMIT_WINDOW_SECONDS", "'mockpay serve --unlimited'", "MOCKPAY_RATE_LIMIT_TIER",
                 f"try again in {refused.headers['Retry-After']} seconds"):  # fmt: skip
        assert said in refused.json()["error"], said
    assert "/api/admin/users" not in refused.json()["error"]
    assert tenant_id


@pytest.mark.parametrize("settings", [replace(LIMITED, rate_limit_high=1, rate_limit_tier="high")])
async def test_a_refusal_of_a_tenant_names_what_lifts_the_limit_for_it_alone(client: httpx.AsyncClient) -> None:
    await register(client)
    me = (await client.get("/api/auth/me")).json()
    error = (await client.get("/api/auth/me")).json()["error"]
    for said in ("a tenant may make 1 in 15 minutes in the tier high", "MOCKPAY_RATE_LIMIT_HIGH", "--unlimited",
                 f"PATCH /api/admin/users/{me['tenant_id']}", "MOCKPAY_RATE_LIMIT_TIER", "nothing was done"):  # fmt: skip
        assert said in error, said
    assert error.endswith(".")
    lifted = {"rate_limit_tier": "unlimited"}
    await client.patch(f"/api/admin/users/{me['tenant_id']}", json=lifted, headers=bearer(ADMIN_KEY))
    assert (await client.get("/api/auth/me")).status_code == 200  # what it said is true


@pytest.mark.parametrize(("settings", "said"), [
    (LIMITED, "Limits: 10 requests in 15 minutes for each tenant, 5 payments in 60 seconds before a fraud rule flags the next; --unlimited lifts both."),
    (replace(LIMITED, rate_limit_tier="unlimited"), "Limits: 5 payments in 60 seconds before a fraud rule flags the next; --unlimited lifts it."),
    (replace(LIMITED, unlimited=True), "Limits: no limit of requests, and no fraud rule that counts payments."),
])  # fmt: skip
async def test_a_new_tenant_is_told_its_limits(client: httpx.AsyncClient, said: str) -> None:
    registered = await client.post("/api/auth/register", json={"name": "A", "email": "a@example.com"})
    assert registered.json()["instructions"].endswith(said)


async def test_a_new_tenant_is_told_of_the_rule_that_is_in_force(client: httpx.AsyncClient) -> None:
    async def told(email: str) -> str:
        registered = await client.post("/api/auth/register", json={"name": "A", "email": email})
        instructions: str = registered.json()["instructions"]
        return instructions.partition("Limits: ")[2]

    rules = (await client.get("/api/admin/fraud-rules", headers=bearer(ADMIN_KEY))).json()["rules"]
    [velocity] = [rule["id"] for rule in rules if rule["rule_type"] == "velocity"]
    path = f"/api/admin/fraud-rules/{velocity}"
    await client.patch(path, json={"threshold": 7, "window_secs": 7200}, headers=bearer(ADMIN_KEY))
    assert "7 payments in 2 hours before a fraud rule flags the next" in await told("one@example.com")
    await client.patch(path, json={"is_active": False}, headers=bearer(ADMIN_KEY))
    assert await told("two@example.com") == "10 requests in 15 minutes for each tenant; --unlimited lifts it."
