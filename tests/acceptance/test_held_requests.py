"""What faults hold of a server has a bound, and makes room: whoever lets thousands of requests wait, shuts out nobody."""

import json
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.test_hostile_clients import (
    FILES,
    MEBIBYTE,
    WithFewFiles,
    memory,
    open_connections,
    open_files,
)
from tests.support.processes import Gateway, running, wait_until
from tests.support.raw import connected, statuses

HELD_BY_ONE = 1_000
DELAYED = 2_000
BODY = json.dumps({"amount": 5, "currency": "USD", "metadata": {"text": "x" * 250 * 1024}}).encode()
CHUNKED = b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
BODIES_OF_A_TENANT = 8 * MEBIBYTE // len(BODY)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a limit of files is not the database's too")


class WithAThousandFiles(Gateway):
    """As many as most systems give a program."""

    within = ("bash", "-c", 'ulimit -n 1024 && exec "$@"', "bash")


StartWith = Callable[[type[Gateway]], Gateway]


@pytest.fixture
def start_with(folder: Path, data_dir: Path, used_data_dir: Path) -> Iterator[StartWith]:
    """Start a gateway whose limit of open files it can't raise."""
    subprocess.run(["cp", "-a", used_data_dir, data_dir], check=True)
    settings = {"MOCKPAY_DATA_DIR": str(data_dir), "MOCKPAY_RATE_LIMIT_TIER": "unlimited"}
    with ExitStack() as stack:

        def start_one(kind: type[Gateway]) -> Gateway:
            gateway = kind(folder / "gateway.log", MOCKPAY_LOG_LEVEL="warning", **settings)
            stack.enter_context(running(gateway))
            return gateway

        yield start_one


def asking(gateway: Gateway, fault: str, key: str | None = None, body: bytes = b"") -> bytes:
    """A list, or with a key a payment to be made, as the gateway's tenant."""
    head = f"{'POST' if key else 'GET'} /api/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Authorization: {gateway.client.headers['Authorization']}\r\nX-MockPay-Fault: {fault}\r\n"
    head += f"Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n" if key else ""
    return head.encode() + b"\r\n" + body


def newcomer(gateway: Gateway, path: str, **headers: str) -> int:
    """The answer to a client that has to connect first. 0 if the connection ends before it comes."""
    try:
        return httpx.get(gateway.client.base_url.join(path), headers=headers, trust_env=False, timeout=20).status_code
    except httpx.TransportError:
        return 0


def is_over(connection: socket.socket) -> bool:
    """Whether something came, or the connection ended, reset or not."""
    return bool(select.select([connection], [], [], 0)[0])


def test_a_thousand_held_requests_of_one_tenant_lock_out_nobody(start_with: StartWith) -> None:
    gateway = start_with(WithAThousandFiles)
    other = gateway.register("other@example.com")
    gateway.register("hostile@example.com")
    request = asking(gateway, "timeout")
    with open_files(HELD_BY_ONE + 500), ExitStack() as stack:
        connections = [stack.enter_context(connected(gateway)) for _ in range(HELD_BY_ONE)]
        for connection in connections:
            connection.sendall(request)
        refused = HELD_BY_ONE - 200
        wait_until(lambda: len(over(connections)) >= refused)
        for _ in range(20):
            assert newcomer(gateway, "/health") == 200
            assert newcomer(gateway, "/api/payments", Authorization=f"Bearer {other['api_key']}") == 200
        answered = [answer for answer in map(what_came, over(connections)) if answer]
        assert {answer["code"] for answer in answered} == {"too_many_held"}
        assert len(answered) >= refused // 2, "the others made room"
        assert "this tenant's" in answered[0]["error"]
    wait_until(lambda: is_held_no_longer(gateway))
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.output
    assert "Too many open files" not in gateway.output


def over(connections: list[socket.socket]) -> list[socket.socket]:
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    ended = {number for number, _ in poll.poll(0)}
    return [connection for connection in connections if connection.fileno() in ended]


def what_came(connection: socket.socket) -> dict[str, Any]:
    """The error's body; nothing of one that was reset."""
    try:
        received = connection.recv(65_536)
    except ConnectionError:
        return {}
    if not received:
        return {}
    assert statuses(received) == [429]
    assert b"retry-after: 1\r\n" in received.lower()
    assert b"x-mockpay-fault" not in received.lower(), "it went through none"
    found: dict[str, Any] = json.loads(received.partition(b"\r\n\r\n")[2])
    return found


def is_held_no_longer(gateway: Gateway) -> bool:
    """Those who left are not counted, so there is room for one more."""
    return gateway.client.get("/api/payments", headers={"X-MockPay-Fault": "latency; seconds=0"}).status_code == 200


def test_bodies_of_delayed_requests_have_a_bound_also_when_their_clients_are_gone(start_with: StartWith) -> None:
    gateway = start_with(WithAThousandFiles)
    gateway.register()
    with ExitStack() as stack:
        for number in range(BODIES_OF_A_TENANT):
            connection = stack.enter_context(connected(gateway))
            connection.sendall(asking(gateway, "latency; seconds=300", f"held-{number}", BODY))
        wait_until(lambda: refused_for_its_body(gateway))
    wait_until(lambda: open_connections(gateway) <= 1)
    before = memory(gateway)
    assert all(refused_for_its_body(gateway) for _ in range(DELAYED))
    assert memory(gateway) < before + 50 * MEBIBYTE
    assert gateway.client.get("/api/payments").json()["total"] == 0, "nothing was done of what was refused"
    assert refused_for_its_body(gateway, CHUNKED), "of which nobody knows how long it is"
    assert is_held_no_longer(gateway), "what has no body is another matter"


def refused_for_its_body(gateway: Gateway, body: bytes = BODY) -> bool:
    """Its client leaves if nothing comes."""
    with connected(gateway) as connection:
        request = asking(gateway, "latency; seconds=300", "refused", body)
        if body is CHUNKED:
            request = request.replace(b"Content-Length: %d" % len(CHUNKED), b"Transfer-Encoding: chunked")
        connection.sendall(request)
        connection.settimeout(10)
        try:
            answer = what_came(connection)
        except TimeoutError:
            return False
    return answer["code"] == "too_many_held" and "8 MiB" in answer["error"]


def test_held_connections_make_room_for_newcomers(start_with: StartWith) -> None:
    """Where there are as many connections as there may be, a held one goes, and not who has only just come."""
    gateway = start_with(WithFewFiles)
    gateway.register()
    with ExitStack() as stack:
        held = []
        for fault in ("timeout", "lost_response; as=timeout", "latency; seconds=300"):
            held.append(stack.enter_context(connected(gateway)))
            held[-1].sendall(asking(gateway, fault))
        others: list[socket.socket] = []
        while not all(is_over(connection) for connection in held):
            assert len(others) < 2 * FILES, "nobody made room"
            others.append(stack.enter_context(connected(gateway)))
            others[-1].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert statuses(others[-1].recv(65_536)) == [200], "served, though there were too many"
        for connection in held[:2]:
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    assert "Traceback" not in gateway.output
