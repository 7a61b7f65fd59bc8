"""Payments through the whole application: routes, bodies, answers, errors."""

from typing import Any

import httpx
import pytest

PAYMENTS = "/api/payments"
BODY = {"amount": 49.99, "currency": "usd"}

PAYMENT_FIELDS = {
    "id", "payment_id", "amount", "currency", "status", "webhook_url", "description", "metadata", "idempotency_key",
    "failure_code", "failure_message", "refund_amount", "refunded_at", "refund_reason", "flag_reason", "flag_rule",
    "created_at", "updated_at",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("api_key")


async def create(client: httpx.AsyncClient, key: str = "k", **body: Any) -> httpx.Response:
    return await client.post(PAYMENTS, json={**BODY, **body}, headers={"Idempotency-Key": key})


async def create_and_simulate(client: httpx.AsyncClient, status: str = "success") -> str:
    payment_id: str = (await create(client)).json()["id"]
    response = await client.post(f"{PAYMENTS}/{payment_id}/simulate", json={"status": status})
    assert response.status_code == 200, response.text
    return payment_id


async def test_create_answers_with_the_whole_payment(client: httpx.AsyncClient) -> None:
    response = await create(client, description="Shoes", metadata={"order": 7, "rate": 1.10})
    payment = response.json()
    assert response.status_code == 201
    assert set(payment) == PAYMENT_FIELDS
    assert b'"amount":49.99,' in response.content
    assert payment["payment_id"] == payment["id"]
    assert payment["currency"] == "USD"
    assert payment["status"] == "pending"
    assert payment["idempotency_key"] == "k"
    assert payment["metadata"] == {"order": 7, "rate": 1.1}
    assert payment["created_at"] == payment["updated_at"]
    assert payment["created_at"].endswith("Z")
    assert len(payment["created_at"]) == len("2026-01-31T12:00:00.123456Z")


async def test_get_answers_as_create_did(client: httpx.AsyncClient) -> None:
    created = await create(client, metadata={"a": 1})
    read = await client.get(f"{PAYMENTS}/{created.json()['id']}")
    assert read.json() == created.json()


@pytest.mark.parametrize(("amount", "currency", "text"), [
    ("5000", "JPY", "5000"), (5000, "usd", "5000"), (100.0, "JPY", "100"), ("0.001", "KWD", "0.001"),
    (10_000_000, "EUR", "10000000"), ("49.90", "INR", "49.9"), (0.0001, "CLF", "0.0001"),
])  # fmt: skip
async def test_money_is_exact(client: httpx.AsyncClient, amount: Any, currency: str, text: str) -> None:
    response = await create(client, amount=amount, currency=currency)
    assert response.status_code == 201, response.text
    assert f'"amount":{text},'.encode() in response.content


async def test_simulate_and_refund(client: httpx.AsyncClient) -> None:
    payment_id = await create_and_simulate(client)
    refund = await client.post(f"{PAYMENTS}/{payment_id}/refund", json={"refund_amount": "9.99", "reason": "torn"})
    assert refund.status_code == 200
    answer = refund.json()
    assert set(answer) == {
        "payment_id", "status", "original_amount", "refund_amount", "refunded_at", "refund_reason"
    }  # fmt: skip
    assert (answer["status"], answer["original_amount"], answer["refund_amount"], answer["refund_reason"]) == (
        "partially_refunded", 49.99, 9.99, "torn"
    )  # fmt: skip
    payment = (await client.get(f"{PAYMENTS}/{payment_id}")).json()
    assert payment["status"] == "partially_refunded"
    assert payment["refunded_at"] == answer["refunded_at"]


async def test_a_full_refund(client: httpx.AsyncClient) -> None:
    payment_id = await create_and_simulate(client)
    refund = await client.post(f"{PAYMENTS}/{payment_id}/refund", json={"refund_amount": 49.99})
    assert refund.json()["status"] == "refunded"


async def test_a_failed_payment_says_why(client: httpx.AsyncClient) -> None:
    payment = (await client.get(f"{PAYMENTS}/{await create_and_simulate(client, 'failed')}")).json()
    assert (payment["status"], payment["failure_code"]) == ("failed", "card_declined")
    assert payment["failure_message"]


async def test_the_audit_trail(client: httpx.AsyncClient) -> None:
    payment_id = await create_and_simulate(client)
    trail = (await client.get(f"{PAYMENTS}/{payment_id}/audit")).json()
    assert trail["payment_id"] == payment_id
    assert trail["total_events"] == 2
    assert trail["intact"] is True
    first, second = trail["history"]
    assert (first["old_status"], first["new_status"], first["triggered_by"]) == (None, "pending", "create_api")
    assert (second["old_status"], second["new_status"], second["triggered_by"]) == (
        "pending", "success", "simulate_api"
    )  # fmt: skip
    assert second["prev_hash"] == first["entry_hash"]
    assert set(first) == {
        "id", "old_status", "new_status", "triggered_by", "metadata", "created_at", "entry_hash", "prev_hash"
    }  # fmt: skip


@pytest.mark.parametrize("path", ["simulate", "refund"])
async def test_a_forbidden_transition(client: httpx.AsyncClient, path: str) -> None:
    payment_id = await create_and_simulate(client, "failed")
    body = {"simulate": {"status": "success"}, "refund": {"refund_amount": 1}}[path]
    response = await client.post(f"{PAYMENTS}/{payment_id}/{path}", json=body)
    assert response.status_code == 409
    assert response.json()["code"] == "invalid_transition"


@pytest.mark.parametrize("refund_amount", [50, "49.991", 0, -1, "many", True, None])
async def test_a_refund_amount_that_does_not_fit(client: httpx.AsyncClient, refund_amount: Any) -> None:
    payment_id = await create_and_simulate(client)
    response = await client.post(f"{PAYMENTS}/{payment_id}/refund", json={"refund_amount": refund_amount})
    assert response.status_code == 400
    assert [fault["field"] for fault in response.json()["details"]] == ["refund_amount"]


async def test_an_amount_above_the_limit_is_flagged(client: httpx.AsyncClient) -> None:
    assert (await create(client, "1", amount=100_000)).json()["status"] == "pending"
    payment = (await create(client, "2", amount="100000.01")).json()
    assert (payment["status"], payment["flag_rule"]) == ("flagged", "amount_limit")
    assert "100000.01" in payment["flag_reason"]
    trail = (await client.get(f"{PAYMENTS}/{payment['id']}/audit")).json()
    assert [entry["triggered_by"] for entry in trail["history"]] == ["fraud_engine"]


async def test_a_rule_that_is_switched_off_does_not_flag(client: httpx.AsyncClient, superuser: Any) -> None:
    await superuser.execute("UPDATE fraud_rules SET is_active = false WHERE rule_type = 'amount_limit'")
    assert (await create(client, amount=200_000)).json()["status"] == "pending"


async def test_a_rule_for_one_currency(client: httpx.AsyncClient, superuser: Any) -> None:
    await superuser.execute("UPDATE fraud_rules SET currency = 'EUR', threshold = 10 WHERE rule_type = 'amount_limit'")
    assert (await create(client, "1", currency="EUR")).json()["status"] == "flagged"
    assert (await create(client, "2", currency="USD")).json()["status"] == "pending"


async def test_another_tenants_payment_is_as_absent_as_a_missing_one(client: httpx.AsyncClient) -> None:
    payment_id = await create_and_simulate(client)
    registered = await client.post("/api/auth/register", json={"name": "Other", "email": "other@example.com"})
    other = {"Authorization": f"Bearer {registered.json()['api_key']}", "X-Request-Id": "same"}
    missing = "01a208df-c0d9-756f-80ef-891a5ca24f1b"
    requests: list[tuple[str, str, Any]] = [
        ("GET", "", None), ("GET", "/audit", None), ("GET", "/deliveries", None),
        ("POST", "/simulate", {"status": "success"}), ("POST", "/refund", {"refund_amount": 1}),
    ]  # fmt: skip
    for method, path, body in requests:
        answers = [
            await client.request(method, f"{PAYMENTS}/{id_}{path}", headers=other, json=body)
            for id_ in (payment_id, missing)
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].content == answers[1].content
    assert (await client.get(PAYMENTS, headers=other)).json()["data"] == []


async def test_the_same_key_of_another_tenant_is_another_key(client: httpx.AsyncClient) -> None:
    first = await create(client, "shared")
    registered = await client.post("/api/auth/register", json={"name": "Other", "email": "other@example.com"})
    client.headers["Authorization"] = f"Bearer {registered.json()['api_key']}"
    second = await create(client, "shared")
    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]


async def test_deliveries_of_a_payment(client: httpx.AsyncClient) -> None:
    payment_id = (await create(client, webhook_url="http://127.0.0.1:9/hook")).json()["id"]
    await client.post(f"{PAYMENTS}/{payment_id}/simulate", json={"status": "success"})
    found = (await client.get(f"{PAYMENTS}/{payment_id}/deliveries")).json()
    assert found["total"] == 1
    delivery = found["deliveries"][0]
    assert (delivery["event"], delivery["status"], delivery["attempts"], delivery["attempt_log"]) == (
        "payment.success", "pending", 0, []
    )  # fmt: skip
