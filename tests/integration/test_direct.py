"""The routes that go without the framework answer as it does: byte by byte, but for the request's id."""

from typing import Any

import httpx
import pytest

from mockpay.app import EXPOSED_HEADERS
from mockpay.payments.direct import DIRECT_ROUTES
from mockpay.settings import Settings
from tests.integration.conftest import open_client
from tests.support.gateway import bearer, register

ORIGIN = "https://shop.example"
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


async def test_a_page_of_another_origin_may_read_what_these_routes_answer(database_url: str) -> None:
    """Which it is the framework that says, whether they succeed or not."""
    async with open_client(database_url, Settings(rate_limit_tier="unlimited", cors_origins=ORIGIN)) as client:
        await register(client)
        headers = JSON | {"Origin": ORIGIN}
        created = await client.post("/api/payments", headers=headers | KEY, content=BODY)
        path = f"/api/payments/{created.json()['id']}"
        answers = [
            created,
            await client.get(path, headers=headers),
            await client.post(f"{path}/simulate", headers=headers, content=b'{"status": "success"}'),
            await client.post(f"{path}/refund", headers=headers, content=b'{"refund_amount": 1}'),
            await client.get(UNKNOWN, headers=headers),
        ]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 404]
    assert len(DIRECT_ROUTES) == 4, "each of them is asked here"
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["Access-Control-Expose-Headers"].split(", ") == EXPOSED_HEADERS
