"""What must hold however many clients act at once."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

BODY = {"amount": 50, "currency": "USD", "webhook_url": "http://127.0.0.1:9/hook"}

pytestmark = pytest.mark.usefixtures("api_key")


async def create(client: httpx.AsyncClient, key: str) -> httpx.Response:
    return await client.post("/api/payments", json=BODY, headers={"Idempotency-Key": key})


async def test_the_velocity_rule_is_exact(client: httpx.AsyncClient, superuser: Any) -> None:
    answers = await asyncio.gather(*(create(client, f"key-{number}") for number in range(50)))
    assert Counter(answer.json()["status"] for answer in answers) == {"pending": 5, "flagged": 45}
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries WHERE event = 'fraud.detected'") == 45


async def test_velocity_counts_each_tenant_for_itself(client: httpx.AsyncClient) -> None:
    await asyncio.gather(*(create(client, f"key-{number}") for number in range(5)))
    registered = await client.post("/api/auth/register", json={"name": "Other", "email": "other@example.com"})
    client.headers["Authorization"] = f"Bearer {registered.json()['api_key']}"
    assert (await create(client, "first")).json()["status"] == "pending"


async def test_failed_payments_do_not_count(client: httpx.AsyncClient) -> None:
    for number in range(6):
        payment = (await create(client, f"key-{number}")).json()
        assert payment["status"] == "pending"
        await client.post(f"/api/payments/{payment['id']}/simulate", json={"status": "failed"})


async def test_twenty_parallel_refunds(client: httpx.AsyncClient, superuser: Any) -> None:
    payment_id = (await create(client, "k")).json()["id"]
    await client.post(f"/api/payments/{payment_id}/simulate", json={"status": "success"})
    answers = await asyncio.gather(
        *(client.post(f"/api/payments/{payment_id}/refund", json={"refund_amount": 50}) for _ in range(20))
    )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 19}
    assert {a.json()["code"] for a in answers if a.status_code == 409} == {"invalid_transition"}
    assert await superuser.fetchval("SELECT count(*) FROM audit_log WHERE new_status = 'refunded'") == 1
    assert await superuser.fetchval("SELECT count(*) FROM webhook_deliveries WHERE event = 'payment.refunded'") == 1


async def test_racing_simulations(client: httpx.AsyncClient) -> None:
    payment_id = (await create(client, "k")).json()["id"]
    statuses = ["success", "failed"] * 10
    answers = await asyncio.gather(
        *(client.post(f"/api/payments/{payment_id}/simulate", json={"status": status}) for status in statuses)
    )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 19}
    trail = (await client.get(f"/api/payments/{payment_id}/audit")).json()
    assert (trail["total_events"], trail["intact"]) == (2, True)


async def test_far_more_requests_than_connections(client: httpx.AsyncClient) -> None:
    """The pool has 16: requests wait for a connection while they hold none, so they can't deadlock."""
    answers = await asyncio.gather(*(create(client, f"key-{number % 200}") for number in range(512)))
    assert Counter(answer.status_code for answer in answers) == {201: 512}
    replayed = sum("Idempotent-Replayed" in answer.headers for answer in answers)
    assert replayed == 512 - 200


async def test_parallel_registrations_of_one_email(client: httpx.AsyncClient) -> None:
    emails = ["same@example.com", "SAME@example.com"] * 10
    answers = await asyncio.gather(
        *(client.post("/api/auth/register", json={"name": "N", "email": email}) for email in emails)
    )
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 19}
    assert {a.json()["code"] for a in answers if a.status_code == 409} == {"email_taken"}
