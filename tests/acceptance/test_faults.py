"""Each fault on the wire, by a plain HTTP client: what the client sees, and what the database holds."""

import http.client
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Start
from tests.support.processes import Gateway, wait_until

ADMIN_KEY = "the-admin-key-of-the-test"
BODY = {"amount": 49.99, "currency": "USD"}


@pytest.fixture
def gateway(start: Start) -> Gateway:
    gateway = start(MOCKPAY_RATE_LIMIT_TIER="unlimited", MOCKPAY_ADMIN_KEY=ADMIN_KEY)
    gateway.end_velocity_rule(ADMIN_KEY)
    gateway.register()
    return gateway


class Client:
    """http.client: no pool, no retries, nothing between the test and the socket."""

    def __init__(self, gateway: Gateway, timeout_seconds: float = 10) -> None:
        self._gateway = gateway
        self._timeout_seconds = timeout_seconds

    def create(self, key: str, fault: str | None = None) -> tuple[int, dict[str, str], bytes]:
        return self.post(
            "/api/payments", BODY, {"Idempotency-Key": key} | ({"X-MockPay-Fault": fault} if fault else {})
        )

    def post(
        self, path: str, body: dict[str, Any], more: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Raises what http.client and the socket raise."""
        url = self._gateway.client.base_url
        headers = {
            "Authorization": self._gateway.client.headers["Authorization"],
            "Content-Type": "application/json",
        } | (more or {})
        connection = http.client.HTTPConnection(url.host, url.port, timeout=self._timeout_seconds)
        with closing(connection):
            connection.request("POST", path, json.dumps(body), headers)
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
    check_clients_that_are_gone(gateway)
    check_rules(gateway, client)
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
    for key, fault, least in (
        ("late", "latency; seconds=0.5", 0.5), ("drawn", "latency; seconds=0.2-0.4; seed=7", 0.2), ("tail", "latency; median=0.1; p99=0.3", 0.01),
    ):  # fmt: skip
        started = time.monotonic()
        status, headers, _ = client.create(key, fault)
        waited = time.monotonic() - started
        told = re.match(r"latency; seconds=([0-9.]+)", headers["x-mockpay-fault"])
        assert told
        assert status == 201
        assert least <= float(told[1]) <= waited < float(told[1]) + 1
        assert key in {payment["idempotency_key"] for payment in payments(gateway)}


def check_rules(gateway: Gateway, client: Client) -> None:
    """By a rule, of another operation: what the client of a simulate sees, and what became of the payment."""
    for number, (fault, raised, is_done) in enumerate([
        ("reset", ConnectionResetError, False), ("timeout", TimeoutError, False), ("error; status=502", None, False),
        ("in_progress", None, False), ("latency; seconds=0.1", None, True), ("truncated", http.client.IncompleteRead, True),
        ("malformed", None, True), ("lost_response", ConnectionResetError, True), ("lost_response; as=timeout", TimeoutError, True),
        ("lost_response; as=error", None, True),
    ]):  # fmt: skip
        payment = json.loads(client.create(f"rule-{number}")[2])
        path = f"/api/payments/{payment['id']}"
        rule = gateway.client.post("/api/faults", json={"fault": fault, "operation": "simulate", "times": 1}).json()
        with pytest.raises(raised) if raised else nullcontext():
            Client(gateway, timeout_seconds=0.5).post(f"{path}/simulate", {"status": "success"})
        statuses = ["pending", "success"] if is_done else ["pending"]
        history = gateway.client.get(f"{path}/audit").json()["history"]
        assert [entry["new_status"] for entry in history] == statuses, fault
        timeline = gateway.client.get(f"{path}/timeline").json()["data"]
        assert [entry["fault_rule"] for entry in timeline if entry.get("fault")] == [rule["id"]]
        assert client.post(f"{path}/simulate", {"status": "success"})[0] == (409 if is_done else 200)
    gateway.client.delete("/api/faults")


def check_clients_that_are_gone(gateway: Gateway) -> None:
    """What came whole is done, however late; what did not is not."""
    with pytest.raises(TimeoutError):
        Client(gateway, timeout_seconds=0.1).create("impatient", "latency; seconds=0.4")
    wait_until(lambda: "impatient" in {payment["idempotency_key"] for payment in payments(gateway)})
    timeline = gateway.client.get("/api/timeline").json()["data"]
    [entry] = [entry for entry in timeline if entry.get("idempotency_key") == "impatient"]
    assert (entry["status"], entry["fault"]) == (None, "latency; seconds=0.4")
    for fault in ("", "X-MockPay-Fault: latency; seconds=0.1\r\n"):
        cut_off_in_its_body(gateway, fault)
    assert "half" not in {payment["idempotency_key"] for payment in payments(gateway)}


def cut_off_in_its_body(gateway: Gateway, fault: str) -> None:
    url = gateway.client.base_url
    with socket.create_connection((url.host, url.port)) as connection:
        head = (
            f"POST /api/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 40\r\n"
            f"Authorization: {gateway.client.headers['Authorization']}\r\nIdempotency-Key: half\r\n{fault}\r\n"
        )
        connection.sendall(f'{head}{{"amount": 49.99,'.encode())
        time.sleep(0.05)


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


def test_a_stop_does_not_wait_for_who_gets_no_answer(gateway: Gateway) -> None:
    """Nor does one that was promised nothing get an answer because the server ends."""
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(Client(gateway).create, f"held-{fault}", fault) for fault in ("timeout", "lost_response; as=timeout")]  # fmt: skip
        wait_until(lambda: bool(payments(gateway)))
        started = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - started < 5
        for each in waiting:
            with pytest.raises(ConnectionResetError):
                each.result()
    assert "Traceback" not in gateway.output


def test_other_clients_are_served_while_one_waits_for_nothing(gateway: Gateway) -> None:
    client = Client(gateway, timeout_seconds=1)
    with pytest.raises(TimeoutError):
        client.create("k", "timeout")
    assert gateway.client.get("/api/payments").json()["total"] == 0
    assert gateway.stop() == 0
