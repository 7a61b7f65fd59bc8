"""PATCH of a payment: what a client may change of it, whatever its state."""

from typing import Any

import httpx
import pytest

from tests.support.gateway import Gateway, bearer

FULL = {"description": "Shoes", "metadata": {"a": 1, "b": 2}, "webhook_url": "http://127.0.0.1:9/old"}


@pytest.fixture
async def payment(client: httpx.AsyncClient, api_key: str) -> dict[str, Any]:
    assert api_key
    body = {"amount": 49.99, "currency": "USD", **FULL}
    response = await client.post("/api/payments", json=body, headers={"Idempotency-Key": "k"})
    created: dict[str, Any] = response.json()
    return created


@pytest.mark.parametrize(("change", "then"), [
    ({"description": "Boots"}, {"description": "Boots"}), ({"description": None}, {"description": None}),
    ({"metadata": {"c": 3}}, {"metadata": {"c": 3}}), ({"metadata": None}, {"metadata": None}),
    ({"webhook_url": None, "metadata": {}}, {"webhook_url": None, "metadata": {}}),
])  # fmt: skip
async def test_what_is_left_out_stays(
    client: httpx.AsyncClient, payment: dict[str, Any], change: dict[str, Any], then: dict[str, Any]
) -> None:
    changed = (await client.patch(f"/api/payments/{payment['id']}", json=change)).json()
    assert changed["updated_at"] > payment["updated_at"]
    assert changed == payment | then | {"updated_at": changed["updated_at"]}
    assert (await client.get(f"/api/payments/{payment['id']}")).json() == changed


async def test_an_empty_change_changes_nothing(client: httpx.AsyncClient, payment: dict[str, Any]) -> None:
    response = await client.patch(f"/api/payments/{payment['id']}", json={})
    assert (response.status_code, response.json()) == (200, payment)


async def test_in_every_state_and_pending_deliveries_keep_their_address(
    gateway: Gateway, client: httpx.AsyncClient, credentials: Any
) -> None:
    payment = await gateway.failed("k")
    changed = await client.patch(
        f"/api/payments/{payment.id}", json={"webhook_url": None}, headers=bearer(credentials.api_key)
    )
    assert (changed.json()["status"], changed.json()["webhook_url"]) == ("failed", None)
    await gateway.worker().run_due()
    assert [each.path for each in gateway.receiver.received] == ["/webhooks"]
