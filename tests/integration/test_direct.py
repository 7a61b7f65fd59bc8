"""The routes that go without the framework answer as it does: byte by byte, but for the request's id."""

from typing import Any

import httpx
import pytest

from tests.support.gateway import bearer

BODY = b'{"amount": 5, "currency": "USD"}'
JSON = {"Content-Type": "application/json"}
UNKNOWN = "/api/payments/01a208df-c0d9-756f-80ef-891a5ca24f1b"
KEY = {"Idempotency-Key": "k"}

REQUESTS: list[tuple[str, str, dict[str, str], bytes]] = [
    ("POST", "/api/payments", JSON, BODY), ("POST", "/api/payments", KEY, BODY), ("POST", "/api/payments", JSON | KEY, b""),
    ("POST", "/api/payments", JSON | KEY, b"{"), ("POST", "/api/payments", JSON | KEY, b"[]"), ("POST", "/api/payments", JSON | KEY, b'{"amount": 0}'),
    ("POST", "/api/payments", JSON | KEY, b"x" * 300_000), ("POST", "/api/payments", {"Content-Type": "text/plain"} | KEY, BODY),
    ("POST", "/api/payments", JSON | {"Idempotency-Key": "x" * 256}, BODY), ("POST", "/api/payments", JSON | KEY | bearer("ab" * 32), BODY),
    ("POST", "/api/payments", JSON | KEY | {"Authorization": ""}, BODY), ("POST", "/api/payments", JSON | KEY, b"[" * 5000),
    ("GET", UNKNOWN, {}, b""), ("GET", "/api/payments/x", {}, b""), ("GET", UNKNOWN, {"Authorization": ""}, b""),
    ("POST", f"{UNKNOWN}/simulate", JSON, b'{"status": "success"}'), ("POST", f"{UNKNOWN}/simulate", JSON, b'{"status": "refunded"}'),
    ("POST", "/api/payments/x/simulate", JSON, b'{"status": "success"}'), ("POST", f"{UNKNOWN}/refund", JSON, b'{"refund_amount": 1}'),
    ("POST", f"{UNKNOWN}/refund", JSON | {"Idempotency-Key": ""}, b'{"refund_amount": 1}'), ("POST", f"{UNKNOWN}/simulate", JSON, b""),
    ("DELETE", "/api/payments", {}, b""), ("POST", UNKNOWN, JSON, b"{}"), ("GET", "/api/payments//simulate", {}, b""),
]  # fmt: skip


def comparable(response: httpx.Response) -> tuple[int, dict[str, str], Any]:
    headers = {name: value for name, value in response.headers.items() if name not in ("x-request-id", "date")}
    body = response.json()
    body.pop("request_id", None)
    headers.pop("content-length", None)
    return response.status_code, headers, body


@pytest.mark.parametrize(("method", "path", "headers", "content"), REQUESTS)
async def test_both_ways_answer_the_same(
    shared_client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str], content: bytes
) -> None:
    """A slash at the end is for the framework alone."""
    direct = await shared_client.request(method, path, headers=headers, content=content)
    framework = await shared_client.request(method, f"{path}/", headers=headers, content=content)
    assert comparable(direct) == comparable(framework)
    assert "traceback" not in direct.text.lower()


async def test_what_succeeds_is_a_repeat_of_the_other_way(shared_client: httpx.AsyncClient) -> None:
    headers = JSON | {"Idempotency-Key": "both ways"}
    first = await shared_client.post("/api/payments", headers=headers, content=BODY)
    again = await shared_client.post("/api/payments/", headers=headers, content=BODY)
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    path = f"/api/payments/{first.json()['id']}"
    assert (await shared_client.get(path)).content == (await shared_client.get(f"{path}/")).content == first.content


async def test_a_page_of_another_origin_is_answered_by_the_framework(shared_client: httpx.AsyncClient) -> None:
    response = await shared_client.get(UNKNOWN, headers={"Origin": "https://shop.example"})
    assert response.status_code == 404
