"""Two API processes and two workers on one external PostgreSQL: what must be exact is so over all of them."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.support.background import Background
from tests.support.processes import Gateway, wait_until

ADMIN = {"Authorization": "Bearer the-admin-key-of-the-tests"}
RULES = "/api/admin/fraud-rules"
VELOCITY = "00000000-0000-7000-8000-000000000001"
Request = Callable[[httpx.Client, int], httpx.Response]


def at_once(gateways: list[Gateway], count: int, request: Request) -> list[httpx.Response]:
    """`count` requests, in turn to each process, many at a time."""
    with ThreadPoolExecutor(16) as threads:
        answers = [threads.submit(request, gateways[number % 2].client, number) for number in range(count)]
        return [answer.result() for answer in answers]


def create(client: httpx.Client, key: str, **body: Any) -> httpx.Response:
    return client.post("/api/payments", json={"amount": 5, "currency": "USD", **body}, headers={"Idempotency-Key": key})


def test_what_is_exact_in_one_process_is_exact_in_all(gateways: list[Gateway]) -> None:
    """Rules, velocity, rate limit and the key, one after the other, since starting four programs is what takes time."""
    one, other = gateways
    check_velocity(gateways)
    check_rule_changes(one, other)
    check_rate_limit(gateways)
    check_key_rotation(one, other)


def check_velocity(gateways: list[Gateway]) -> None:
    answers = at_once(gateways, 50, lambda client, number: create(client, f"velocity-{number}"))
    assert Counter(answer.json()["status"] for answer in answers) == {"pending": 5, "flagged": 45}


def check_rule_changes(one: Gateway, other: Gateway) -> None:
    """Each is made through one process, and tells in the next payment through the other."""
    assert one.client.patch(f"{RULES}/{VELOCITY}", headers=ADMIN).json()["is_active"] is False
    assert create(other.client, "off").json()["status"] == "pending"
    rule = {"name": "cap", "rule_type": "amount_limit", "threshold": 10}
    path = f"{RULES}/{one.client.post(RULES, json=rule, headers=ADMIN).json()['id']}"
    for number, threshold in enumerate((10, 100, 10, 100, 10)):
        one.client.patch(path, json={"threshold": threshold}, headers=ADMIN)
        assert create(other.client, f"cap-{number}", amount=50).json()["status"] == (
            "flagged" if threshold == 10 else "pending"
        )
    one.client.delete(path, headers=ADMIN)
    assert create(other.client, "free", amount=50).json()["status"] == "pending"


def check_rate_limit(gateways: list[Gateway]) -> None:
    tenant_id = gateways[0].client.get("/api/auth/me").json()["tenant_id"]
    tier = {"rate_limit_tier": "high"}
    gateways[0].client.patch(f"/api/admin/users/{tenant_id}", json=tier, headers=ADMIN)
    answers = at_once(gateways, 120, lambda client, _: client.get("/api/payments"))
    assert Counter(answer.status_code for answer in answers) == {200: 50, 429: 70}
    tier = {"rate_limit_tier": "unlimited"}
    gateways[1].client.patch(f"/api/admin/users/{tenant_id}", json=tier, headers=ADMIN)
    assert gateways[0].client.get("/api/payments").status_code == 200


def check_key_rotation(one: Gateway, other: Gateway) -> None:
    old = one.client.headers["Authorization"]
    for gateway in (one, other, one):
        new_key = gateway.client.post("/api/auth/rotate-key").json()["api_key"]
        for each in (one, other):
            assert each.client.get("/api/auth/me", headers={"Authorization": old}).status_code == 401
            each.client.headers["Authorization"] = f"Bearer {new_key}"
            assert each.client.get("/api/auth/me").status_code == 200
        old = one.client.headers["Authorization"]


def test_two_workers_deliver_each_event_once(gateways: list[Gateway], listen: Callable[..., Background]) -> None:
    background = listen()
    one = gateways[0]
    one.client.patch(f"{RULES}/{VELOCITY}", json={"is_active": False}, headers=ADMIN)
    one.client.patch("/api/auth/me", json={"webhook_url": background.receiver.url})

    def pay(client: httpx.Client, number: int) -> httpx.Response:
        payment_id = create(client, f"pay-{number}").json()["id"]
        return client.post(f"/api/payments/{payment_id}/simulate", json={"status": "success"})

    assert {answer.status_code for answer in at_once(gateways, 60, pay)} == {200}
    background.wait_for(60)
    wait_until(lambda: not one.client.get("/api/webhooks/deliveries?status=pending").json()["data"])
    ids = Counter(received.headers["X-MockPay-Delivery"] for received in background.receiver.received)
    assert (len(ids), set(ids.values())) == (60, {1})
