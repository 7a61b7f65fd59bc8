"""Admin routes: who may, tenants and tiers, fraud rules, the snapshot of metrics."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from mockpay.admin.metrics import average, percent
from mockpay.payments.model import Fail
from mockpay.settings import Settings
from mockpay.tenants.service import Credentials
from tests.integration.conftest import ADMIN_KEY, open_client
from tests.support.gateway import Gateway, bearer, register

RULES, USERS, METRICS = "/api/admin/fraud-rules", "/api/admin/users", "/api/admin/metrics"
ADMIN = bearer(ADMIN_KEY)
VELOCITY = {"name": "Slow down", "rule_type": "velocity", "threshold": 1, "window_secs": 60}
LIMIT = {"name": "Not so much", "rule_type": "amount_limit", "threshold": 99.5}


@pytest.fixture
async def admin(client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.headers["Authorization"] = f"Bearer {ADMIN_KEY}"
    return client


async def create(client: httpx.AsyncClient, key: str, api_key: str, **body: Any) -> dict[str, Any]:
    response = await client.post(
        "/api/payments",
        json={"amount": 5, "currency": "USD", **body},
        headers=bearer(api_key) | {"Idempotency-Key": key},
    )
    assert response.status_code == 201, response.text
    payment: dict[str, Any] = response.json()
    return payment


async def test_without_an_admin_key_nobody_is_admin(database_url: str) -> None:
    async with open_client(database_url, Settings(rate_limit_tier="unlimited")) as http:
        for headers in ({}, bearer("None"), bearer(""), ADMIN):
            assert (await http.get(USERS, headers=headers)).status_code == 401


async def test_the_admin_key_is_no_tenants(admin: httpx.AsyncClient) -> None:
    response = await admin.get("/api/payments")
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert "admin" in response.json()["error"]


async def test_tenants_are_listed_without_their_secrets(admin: httpx.AsyncClient) -> None:
    keys = [await register(admin, f"tenant-{number}@example.com") for number in range(5)]
    await create(admin, "k", keys[-1])
    admin.headers.update(ADMIN)
    first = (await admin.get(USERS, params={"limit": 3})).json()
    rest = (await admin.get(USERS, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert (first["total"], rest["next_cursor"]) == (5, None)
    users = first["users"] + rest["users"]
    assert [user["email"] for user in users] == [f"tenant-{number}@example.com" for number in range(4, -1, -1)]
    assert [user["payments"] for user in users] == [1, 0, 0, 0, 0]
    assert not [key for key in keys if key in str(users)]


async def test_payments_are_not_counted_to_list_tenants_or_to_change_a_tier(
    admin: httpx.AsyncClient, superuser: Any
) -> None:
    """It took a second and a half a million. Here their table can't be read at all meanwhile."""
    key = await register(admin)
    for number in range(3):
        await create(admin, f"k{number}", key)
    admin.headers.update(ADMIN)
    async with asyncio.timeout(10), superuser.transaction():
        await superuser.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")
        [user] = (await admin.get(USERS)).json()["users"]
        changed = (await admin.patch(f"{USERS}/{user['id']}", json={"rate_limit_tier": "high"})).json()
    assert (user["payments"], changed["payments"], changed["rate_limit_tier"]) == (3, 3, "high")


@pytest.mark.parametrize(("body", "faulty"), [
    ({}, {"name", "rule_type", "threshold"}), (LIMIT | {"window_secs": 5}, {"window_secs"}),
    (VELOCITY | {"window_secs": None}, {"window_secs"}), (VELOCITY | {"threshold": 1.5}, {"threshold"}),
    (VELOCITY | {"window_secs": 0}, {"window_secs"}), (LIMIT | {"threshold": -1}, {"threshold"}),
    (LIMIT | {"threshold": "5"}, {"threshold"}), (LIMIT | {"threshold": 0.00001}, {"threshold"}),
    (LIMIT | {"currency": "ZZZ"}, {"currency"}), (LIMIT | {"action": "block"}, {"action"}),
    (LIMIT | {"tenant_id": "x"}, {"tenant_id"}), (LIMIT | {"rule_type": "x"}, {"rule_type"}),
    (LIMIT | {"tenant_id": "01a208df-c0d9-756f-80ef-891a5ca24f1b"}, {"tenant_id"}),
    (LIMIT | {"name": "", "is_active": 1, "treshold": 1}, {"name", "is_active", "treshold"}),
])  # fmt: skip
async def test_wrong_rules(admin: httpx.AsyncClient, body: dict[str, Any], faulty: set[str]) -> None:
    response = await admin.post(RULES, json=body)
    assert response.status_code == 400, response.text
    assert {fault["field"] for fault in response.json()["details"]} == faulty
    assert (await admin.get(RULES)).json()["total"] == 2


async def test_the_default_rules(admin: httpx.AsyncClient) -> None:
    rules = (await admin.get(RULES)).json()["rules"]
    shown = [(r["rule_type"], r["threshold"], r["window_secs"], r["is_active"], r["action"]) for r in rules]
    assert shown == [("velocity", 5, 60, True, "flag"), ("amount_limit", 100_000, None, True, "flag")]
    first = (await admin.get(RULES, params={"limit": 1})).json()
    second = (await admin.get(RULES, params={"limit": 1, "cursor": first["next_cursor"]})).json()
    assert first["rules"] + second["rules"] == rules
    assert second["next_cursor"] is None


async def test_a_rule_lives_from_the_next_payment_on_every_process(admin: httpx.AsyncClient, database_url: str) -> None:
    """Created, changed, toggled off and on, deleted."""
    async with open_client(database_url, Settings(rate_limit_tier="unlimited")) as other:
        key = await register(other)

        async def status(number: int, amount: int = 100) -> str:
            payment = await create(other, f"k{number}", key, amount=amount)
            return f"{payment['status']} {payment['flag_rule'] or ''}".strip()

        assert await status(0) == "pending"
        rule = (await admin.post(RULES, json=LIMIT)).json()
        path = f"{RULES}/{rule['id']}"
        assert await status(1) == "flagged Not so much"
        changed = (await admin.patch(path, json={"threshold": 100, "name": "More"})).json()
        assert (changed["threshold"], changed["name"]) == (100, "More")
        assert await status(2) == "pending"
        assert await status(3, 101) == "flagged More"
        assert (await admin.patch(path)).json()["is_active"] is False
        await admin.delete(f"{RULES}/00000000-0000-7000-8000-000000000001")  # velocity counts these payments too
        assert await status(4, 101) == "pending"
        assert (await admin.patch(path, json={})).json()["is_active"] is True
        assert await status(5, 101) == "flagged More"
        deleted = await admin.delete(path)
        assert (deleted.status_code, deleted.content) == (204, b"")
        assert await status(6, 101) == "pending"
        assert (await admin.delete(path)).status_code == 404


async def test_of_several_rules_that_would_flag_the_oldest_does(admin: httpx.AsyncClient, superuser: Any) -> None:
    """The time that it was made at says which that is, and neither its id nor its place in the table."""
    key = await register(admin)
    admin.headers.update(ADMIN)
    one, two, three = [(await admin.post(RULES, json=LIMIT | {"name": name})).json() for name in ("1", "2", "3")]
    assert (await create(admin, "as made", key, amount=100))["flag_rule"] == "1"
    for rules in ([three, two, one], [two, three, one], [one, three, two]):
        for day, rule in enumerate(rules, 1):
            made_at = datetime(2026, 1, day, tzinfo=UTC)
            await superuser.execute("UPDATE fraud_rules SET created_at = $2 WHERE id = $1", rule["id"], made_at)
        names = [rule["name"] for rule in rules]
        payment = await create(admin, f"oldest is {names[0]}", key, amount=100)
        assert (payment["status"], payment["flag_rule"]) == ("flagged", names[0])
        listed = [rule["name"] for rule in (await admin.get(RULES)).json()["rules"]]
        assert [name for name in listed if name in names] == names


async def test_a_rule_of_one_tenant_and_one_currency(admin: httpx.AsyncClient) -> None:
    mine, theirs = await register(admin), await register(admin, "other@example.com")
    admin.headers.update(ADMIN)
    tenant_id = (await admin.get("/api/auth/me", headers=bearer(mine))).json()["tenant_id"]
    rule = LIMIT | {"tenant_id": tenant_id, "currency": "eur"}
    assert (await admin.post(RULES, json=rule)).json()["currency"] == "EUR"
    flagged = {
        (key == mine, currency): (await create(admin, currency, key, amount=100, currency=currency))["status"]
        for key in (mine, theirs) for currency in ("EUR", "USD")
    }  # fmt: skip
    assert flagged == {
        (True, "EUR"): "flagged", (True, "USD"): "pending", (False, "EUR"): "pending", (False, "USD"): "pending",
    }  # fmt: skip


@pytest.mark.parametrize("body", [
    {"window_secs": 5}, {"threshold": None}, {"is_active": "yes"}, {"rule_type": "velocity"}, {"name": "x" * 101},
])  # fmt: skip
async def test_changes_that_do_not_fit(admin: httpx.AsyncClient, body: dict[str, Any]) -> None:
    rule = (await admin.post(RULES, json=LIMIT)).json()
    response = await admin.patch(f"{RULES}/{rule['id']}", json=body)
    assert [fault["field"] for fault in response.json()["details"]] == list(body)
    assert rule in (await admin.get(RULES)).json()["rules"]


async def test_metrics_of_an_empty_server(admin: httpx.AsyncClient) -> None:
    metrics = (await admin.get(METRICS)).json()
    assert metrics["payments"] | {"volume_note": ""} == {
        "total": 0, "last_24_hours": 0, "average_amount": 0, "total_volume": 0, "volume_by_currency": {},
        "volume_note": "", "success_rate_pct": 0,
        "by_status": {
            "pending": 0, "success": 0, "failed": 0, "flagged": 0, "refunded": 0, "partially_refunded": 0,
        },
    }  # fmt: skip
    assert set(metrics["webhooks"].values()) == {0}


async def test_metrics_count_what_happened(
    gateway: Gateway, admin: httpx.AsyncClient, credentials: Credentials, superuser: Any
) -> None:
    """Two succeed, one of them is delivered at the second attempt; one fails, one is flagged, one is old and in yen."""
    gateway.receiver.answers = [500, 410]
    await gateway.succeeded("one")
    await gateway.worker().run_due()
    await gateway.succeeded("two")
    await gateway.worker().run_due()
    await superuser.execute("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'pending'")
    await gateway.worker().run_due()
    await gateway.change(await gateway.create("three", amount="0.10"), Fail())
    await create(admin, "four", credentials.api_key, amount=100_001)
    await create(admin, "five", credentials.api_key, amount=301, currency="JPY")
    await superuser.execute("UPDATE payments SET created_at = created_at - interval '2 years' WHERE currency = 'JPY'")
    metrics = (await admin.get(METRICS)).json()
    payments, webhooks = metrics["payments"], metrics["webhooks"]
    assert payments["by_status"] == {
        "pending": 1, "success": 2, "failed": 1, "flagged": 1, "refunded": 0, "partially_refunded": 0,
    }  # fmt: skip
    assert (payments["total"], payments["success_rate_pct"]) == (5, 66.67)
    assert payments["volume_by_currency"] == {
        "JPY": {"payments": 1, "total_volume": 301, "average_amount": 301},
        "USD": {"payments": 4, "total_volume": 100_101.1, "average_amount": 25_025.275},
    }
    assert (payments["total_volume"], payments["average_amount"]) == (100_402.1, 20_080.42)
    assert "currenc" in payments["volume_note"]
    assert {name: webhooks[name] for name in ("total_attempts", "successful", "failed", "dlq_depth", "queue_depth")} == {
        "total_attempts": 3, "successful": 1, "failed": 2, "dlq_depth": 1, "queue_depth": 1,
    }  # fmt: skip
    assert (webhooks["delivery_rate_pct"], webhooks["average_retries"]) == (50.0, 0.5)
    assert webhooks["oldest_pending_seconds"] > 0
    assert (metrics["fraud"]["total_flagged"], metrics["fraud"]["flag_rate_pct"]) == (1, 20.0)
    assert (metrics["audit"]["total_transitions"], metrics["audit"]["payments_with_history"]) == (8, 5)
    assert metrics["system"]["database"].startswith("PostgreSQL ")
    assert metrics["system"]["environment"] == "development"


@pytest.mark.parametrize(("volume", "count", "result"), [("0", 0, "0"), ("10", 3, "3.3333"), ("100", 1, "100")])
def test_averages(volume: str, count: int, result: str) -> None:
    assert str(average(Decimal(volume), count)) == result


def test_percentages() -> None:
    assert (percent(1, 3), percent(0, 0)) == (33.33, 0.0)
