"""Each fault on the wire, by a plain HTTP client: what the client sees, and what the database holds."""

import http.client
import json
import time
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Start
from tests.support.processes import Gateway

BODY = {"amount": 49.99, "currency": "USD"}


@pytest.fixture
def gateway(start: Start) -> Gateway:
    gateway = start(MOCKPAY_RATE_LIMIT_TIER="unlimited")
    gateway.register()
    return gateway


class Client:
    """http.client: no pool, no retries, nothing between the test and the socket."""

    def __init__(self, gateway: Gateway, timeout_seconds: float = 10) -> None:
        self._gateway = gateway
        self._timeout_seconds = timeout_seconds

    def create(self, key: str, fault: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """Raises what http.client and the socket raise."""
        url = self._gateway.client.base_url
        headers = {
            "Authorization": self._gateway.client.headers["Authorization"],
            "Content-Type": "application/json",
            "Idempotency-Key": key,
        } | ({"X-MockPay-Fault": fault} if fault else {})
        connection = http.client.HTTPConnection(url.host, url.port, timeout=self._timeout_seconds)
        with closing(connection):
            connection.request("POST", "/api/payments", json.dumps(BODY), headers)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def payments(gateway: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gateway.client.get("/api/payments").json()["data"]
    return found


def test_every_fault(gateway: Gateway) -> None:
    """One after the other on one server, since starting it is what takes time."""
    client = Client(gateway)
    check_lost_response(gateway, client)
    check_other_ways_to_lose_it(gateway, client)
    check_nothing_is_done(gateway, client)
    check_answers_that_are_spoilt(gateway, client)
    check_latency(gateway, client)
    check_wrong_headers(gateway)
    assert "Traceback" not in gateway.output
    assert "ASGI" not in gateway.output


def check_lost_response(gateway: Gateway, client: Client) -> None:
    """The test that proves whether a client's retry charges twice."""
    with pytest.raises(ConnectionResetError):
        client.create("order-1", "lost_response")
    [payment] = payments(gateway)
    status, headers, body = client.create("order-1")
    assert (status, headers["idempotent-replayed"], json.loads(body)) == (201, "true", payment)
    assert len(payments(gateway)) == 1
    assert gateway.client.get(f"/api/payments/{payment['id']}/audit").json()["total_events"] == 1
    client.create("order-2")  # the mistake: a new key for the retry
    assert len(payments(gateway)) == 2


def check_other_ways_to_lose_it(gateway: Gateway, client: Client) -> None:
    before = len(payments(gateway))
    with pytest.raises(TimeoutError):
        Client(gateway, timeout_seconds=0.5).create("timeout", "lost_response; as=timeout")
    status, headers, body = client.create("error", "lost_response; as=error; status=502; code=bad_gateway")
    told = "lost_response; as=error; status=502; code=bad_gateway"
    assert (status, json.loads(body)["code"], headers["x-mockpay-fault"]) == (502, "bad_gateway", told)
    assert len(payments(gateway)) == before + 2
    assert [client.create(key)[1]["idempotent-replayed"] for key in ("timeout", "error")] == ["true", "true"]


def check_nothing_is_done(gateway: Gateway, client: Client) -> None:
    before = payments(gateway)
    with pytest.raises(ConnectionResetError):
        client.create("nothing", "reset")
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        Client(gateway, timeout_seconds=0.5).create("nothing", "timeout")
    assert time.monotonic() - started >= 0.5
    for fault, expected, retry_after in (
        ("error", (500, "injected_error"), None), ("error; status=503", (503, "injected_error"), "1"),
        ("error; status=429; code=slow_down", (429, "slow_down"), "1"), ("in_progress", (409, "request_in_progress"), None),
    ):  # fmt: skip
        status, headers, body = client.create("nothing", fault)
        error = json.loads(body)
        assert (status, error["code"]) == expected
        assert error["request_id"] == headers["x-request-id"]
        assert headers.get("retry-after") == retry_after
        assert headers["ratelimit-limit"]
    assert payments(gateway) == before
    assert client.create("nothing")[0] == 201


def check_answers_that_are_spoilt(gateway: Gateway, client: Client) -> None:
    before = len(payments(gateway))
    with pytest.raises(http.client.IncompleteRead) as broken:
        client.create("truncated", "truncated")
    assert broken.value.partial.startswith(b'{"id":')
    status, headers, body = client.create("malformed", "malformed")
    assert (status, headers["content-type"]) == (201, "application/json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    assert len(payments(gateway)) == before + 2
    for key in ("truncated", "malformed"):
        status, headers, body = client.create(key)
        assert (status, headers["idempotent-replayed"], json.loads(body)["idempotency_key"]) == (201, "true", key)


def check_latency(gateway: Gateway, client: Client) -> None:
    started = time.monotonic()
    assert client.create("late", "latency; seconds=0.7")[0] == 201
    assert time.monotonic() - started >= 0.7


def check_wrong_headers(gateway: Gateway) -> None:
    response = gateway.client.get("/api/payments", headers={"X-MockPay-Fault": "explode"})
    assert response.status_code == 400
    assert response.json()["details"][0]["field"] == "X-MockPay-Fault"
    for headers in ({"Authorization": ""}, {"Authorization": f"Bearer {'ab' * 32}"}):  # a stranger may not
        answer = httpx.get(
            gateway.client.base_url.join("/api/payments"),
            headers=headers | {"X-MockPay-Fault": "reset"},
            trust_env=False,
        )
        assert answer.status_code == 401
    assert gateway.client.get("/health", headers={"X-MockPay-Fault": "reset"}).status_code == 200


def test_other_clients_are_served_while_one_waits_for_nothing(gateway: Gateway) -> None:
    client = Client(gateway, timeout_seconds=1)
    with pytest.raises(TimeoutError):
        client.create("k", "timeout")
    assert gateway.client.get("/api/payments").json()["total"] == 0
    assert gateway.stop() == 0
