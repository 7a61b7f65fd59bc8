"""Clients that speak no HTTP, or not to its end: each is refused or cut off, and the others are served meanwhile."""

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.acceptance.conftest import Start
from tests.support.processes import Gateway, running, wait_until
from tests.support.raw import answer_to, connected, statuses, until_closed

TIMEOUT_SECONDS = 1
IDLE_CONNECTIONS = 2_000
MEBIBYTE = 1024 * 1024
LISTED = 10
"""Payments of 100 kB in an answer. The system's buffers hold the first of ten such answers, at most 6 MB, and no more."""

FILES = 300
ADMIN_KEY = "the-admin-key-of-the-tests"
HEAD = b"POST /api/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"amount": 5, "currency": "USD"}'
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def gateway(start: Start) -> Gateway:
    """Its limit of open files is the one that most systems give, and not that of whoever runs the tests."""
    with open_files(1024):
        gateway = start(
            MOCKPAY_RATE_LIMIT_TIER="unlimited",
            MOCKPAY_REQUEST_TIMEOUT_SECONDS=str(TIMEOUT_SECONDS),
            MOCKPAY_ADMIN_KEY=ADMIN_KEY,
        )
    gateway.end_velocity_rule(ADMIN_KEY)
    gateway.register()
    return gateway


@contextmanager
def open_files(soft: int) -> Iterator[None]:
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def test_hostile_clients(gateway: Gateway) -> None:
    """One after the other on one server, since starting it is what takes time."""
    memory_before = memory(gateway)
    check_broken_requests(gateway)
    check_heads_that_are_too_large(gateway)
    check_pipelining(gateway)
    check_requests_that_stay_unfinished(gateway)
    check_other_protocols(gateway)
    assert payments(gateway) == []
    assert memory(gateway) < memory_before + 100 * MEBIBYTE
    check_requests_that_are_odd_and_right(gateway)
    check_answers_that_are_not_read(gateway)
    assert served(gateway) == {200}
    assert "Traceback" not in gateway.output
    assert " 500 " not in gateway.output
    assert "status=500" not in gateway.output
    assert "[error" not in gateway.output


def memory(gateway: Gateway) -> int:
    size: int = psutil.Process(gateway.process.pid).memory_info().rss
    return size


def payments(gateway: Gateway) -> list[object]:
    found: list[object] = gateway.client.get("/api/payments").json()["data"]
    return found


def served(gateway: Gateway) -> set[int]:
    """Another client, on a connection of its own each time."""
    return {httpx.get(gateway.client.base_url.join("/ready"), trust_env=False).status_code for _ in range(3)}


def create(gateway: Gateway, key: bytes) -> bytes:
    """The head of a request that would create a payment, without what says how long the body is, and where it begins."""
    return HEAD + b"Authorization: %b\r\nIdempotency-Key: %b\r\n" % (
        gateway.client.headers["Authorization"].encode(),
        key,
    )


def check_broken_requests(gateway: Gateway) -> None:
    """A 400 and the end; and nothing is done, also by routes that take no body."""
    head, chunk = create(gateway, b"broken"), b"%x\r\n%b\r\n" % (len(BODY), BODY)
    chunked = b"Transfer-Encoding: chunked\r\n"
    framings = [
        b"Content-Length: 5\r\n" + chunked, chunked + b"Content-Length: 5\r\n", b"Content-Length: 32\r\nContent-Length: 33\r\n",
        b"Content-Length: 32\r\nContent-Length: 32\r\n", b"Content-Length: -32\r\n", b"Content-Length: +32\r\n", b"Content-Length: many\r\n",
        b"Content-Length: 32, 32\r\n", b"Content-Length: \r\n", b"Content-Length: %b\r\n" % (b"9" * 40), b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: xchunked\r\n", chunked + chunked,
        b"X: a\0b\r\nContent-Length: 32\r\n", b"X\0: a\r\nContent-Length: 32\r\n", b"X: a\nContent-Length: 32\r\n", b": a\r\nContent-Length: 32\r\n",
        b"no colon\r\nContent-Length: 32\r\n", b"X: a\r\n folded\r\nContent-Length: 32\r\n", b"X: a\rb\r\nContent-Length: 32\r\n",
    ]  # fmt: skip
    bodies = [
        b"zz\r\n", b"-1\r\n", b"0x20\r\n", b"2\r\n" + BODY + b"\r\n0\r\n\r\n", chunk + b"x\r\n", chunk + b"0\r\nX\0: a\r\n\r\n",
        b"20\n" + BODY + b"\n0\n\n", b"f" * 18 + b"\r\n" + BODY, b"%x\r\n%b0\r\n\r\n" % (len(BODY), BODY), b"\r\n",
    ]  # fmt: skip
    lines = [
        b"POST /api/payments HTTP/0.9\r\n", b"POST /api/payments HTTP/2.0\r\n", b"POST /api/payments HTTP/3.7\r\n", b"POST /api/payments\r\n",
        b"POST /api/pay ments HTTP/1.1\r\n", b"POST /api/payments\0 HTTP/1.1\r\n", b"POST /api/payments HTTP/1.1\n", b"BREW /api/payments HTTP/1.1\r\n",
        b"POST api/payments HTTP/1.1\r\n", b"CONNECT a:80 HTTP/1.1\r\n", b"POST http://h HTTP/1.1\r\n", b"POST http://h:x/ HTTP/1.1\r\n", b"POST /\xff HTTP/1.1\r\n",
    ]  # fmt: skip
    rest = b"".join(create(gateway, b"broken").splitlines(keepends=True)[1:])
    rotation = create(gateway, b"r").replace(b"/api/payments", b"/api/auth/rotate-key")
    for request in [
        *(head + framing + b"\r\n" + (chunk + b"0\r\n\r\n" if chunked in framing else BODY) for framing in framings),
        *(head + chunked + b"\r\n" + body for body in bodies),
        *(line + rest + b"Content-Length: 32\r\n\r\n" + BODY for line in lines),
        rotation + chunked + b"\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(505),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 100,
        "¡hola!\r\n\r\n".encode(),
    ]:
        received = answer_to(gateway, request)
        assert statuses(received) == [400], request
        assert json.loads(received.partition(b"\r\n\r\n")[2])["code"] == "malformed_http", request
    assert payments(gateway) == []  # and the key that asks so is the one that was not rotated


def check_heads_that_are_too_large(gateway: Gateway) -> None:
    """What is sent after the answer may bring it to nothing, as a reset does; larger ones leave no trace either."""
    head = create(gateway, b"large")
    trailers = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    for request in (
        head + b"X: %b\r\n" % (b"x" * 70_000), head + b"".join(b"X-%d: y\r\n" % number for number in range(10_000)),
        head + b"X: %b\r\nContent-Length: 32\r\n\r\n" % (b"x" * 66_000) + BODY, b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * 66_000),
        head + b"X: " + b"x" * MEBIBYTE, b"GET /" + b"x" * MEBIBYTE, trailers + b"X: y\r\n" * 20_000, trailers + b"X: " + b"x" * MEBIBYTE,
        head + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * MEBIBYTE,
    ):  # fmt: skip
        assert statuses(answer_to(gateway, request)) in ([431], [])
    assert statuses(answer_to(gateway, GET[:-2] + b"Connection: close\r\nX: %b\r\n\r\n" % (b"x" * 60_000))) == [200]


def check_pipelining(gateway: Gateway) -> None:
    """Each is answered, in order; also those before one that is broken, which gets no answer that could be another's."""
    paths = [b"/health", b"/nowhere", b"/ready", b"/api/payments", b"/health"]
    requests = [b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths]
    expected = [200, 404, 200, 401, 200]
    last = GET[:-2] + b"Connection: close\r\n\r\n"
    assert statuses(answer_to(gateway, b"".join(requests) + last)) == [*expected, 200]
    for broken in (
        b"garbage\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"X: %b\r\n\r\n" % (b"x" * 70_000),
    ):
        assert statuses(answer_to(gateway, b"".join(requests) + broken)) == expected
    answered = statuses(answer_to(gateway, GET * 3_000))
    assert 100 < len(answered) < 3_000, "so many at once are not kept"
    assert set(answered) == {200}


def check_requests_that_stay_unfinished(gateway: Gateway) -> None:
    """All at once, and while others are served: each connection is closed in time, however busy it is kept."""
    sized = create(gateway, b"slow") + b"Content-Length: 32\r\n\r\n"
    chunked = create(gateway, b"slow") + b"Transfer-Encoding: chunked\r\n\r\n"
    beginnings = {
        b"": [], b"G": [408], create(gateway, b"slow"): [408], GET[:-1]: [408], sized: [408], sized + BODY[:-1]: [408], chunked: [408],
        chunked + b"5\r\n{": [408], chunked + b"fffffffffffffff\r\n{": [408], GET + HEAD: [200, 408],
        sized[:-2] + b"Expect: 100-continue\r\n\r\n": [100, 408], sized[:-2].replace(b"Bearer", b"Nobody") + b"\r\n": [401],
        sized[:-2] + b"X-MockPay-Fault: timeout\r\n\r\n": [],
    }  # fmt: skip
    with ExitStack() as stack:
        connections = {beginning: stack.enter_context(connected(gateway)) for beginning in beginnings}
        trickling = [
            (stack.enter_context(connected(gateway)), beginning, piece)
            for beginning, piece in (
                (HEAD, b"X"),
                (sized, b"{"),
                (chunked, b"1\r\n \r\n"),
                (GET, b"\r\n"),
                (b"", b"\r\n"),
            )
        ]
        for beginning, connection in connections.items():
            connection.sendall(beginning)
        for connection, beginning, _ in trickling:
            connection.sendall(beginning)
        assert served(gateway) == {200}
        for connection, _, piece in trickling:
            trickle(connection, piece)
        for beginning, connection in connections.items():
            assert statuses(until_closed(connection)) == beginnings[beginning], beginning


def trickle(connection: socket.socket, piece: bytes) -> None:
    """Until the server has enough of it."""
    deadline = time.monotonic() + 10 * TIMEOUT_SECONDS
    with suppress(ConnectionError):
        while time.monotonic() < deadline:
            connection.sendall(piece)
            connection.settimeout(0.05)
            with suppress(TimeoutError):
                if connection.recv(65_536) == b"":
                    return
        pytest.fail(f"still open after {piece!r} for so long")


def check_other_protocols(gateway: Gateway) -> None:
    """Who asks for one is answered in HTTP/1.1; what follows may be no request, but the rest of a body."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: %b\r\n"
    for protocol in (b"websocket", b"h2c"):
        with connected(gateway) as connection:
            for _ in range(2):
                connection.sendall(GET[:-2] + upgrade % protocol + b"\r\n")
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    head = create(gateway, b"upgrade").replace(b"/api/payments", b"/api/auth/register") + upgrade % b"h2c"
    assert statuses(answer_to(gateway, head + b"Content-Length: %d\r\n\r\n" % len(GET) + GET + GET)) == [400]
    assert statuses(answer_to(gateway, GET[:-2] + upgrade % b"h2c" + b"\r\n" + GET)) == [200]


def check_requests_that_are_odd_and_right(gateway: Gateway) -> None:
    """A length with thousands of zeros is a length; and a trailer is no header."""
    chunked = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    for number, rest in enumerate((
        b"Connection: close\r\nContent-Length: %b\r\n\r\n" % str(len(BODY)).zfill(5_000).encode() + BODY,
        chunked + b"Idempotency-Key: other\r\nX-Request-Id: other\r\nAuthorization: other\r\n\r\n", b"\r\n".join([b"X: y"] * 1_000) + b"\r\n" + chunked + b"\r\n",
    )):  # fmt: skip
        received = answer_to(gateway, b"\r\n\r\n" + create(gateway, b"odd-%d" % number) + rest)
        assert statuses(received) == [201], received
        assert b"other" not in received
    assert len(payments(gateway)) == 3


def check_answers_that_are_not_read(gateway: Gateway) -> None:
    """They wait in the server for so long, and then the connection is cut off."""
    make_payments_to_list(gateway)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(not_reading(gateway))
        assert served(gateway) == {200}
        wait_until(lambda: open_connections(gateway) <= 1)  # that of the gateway's own client
        assert memory(gateway) < 500 * MEBIBYTE


def make_payments_to_list(gateway: Gateway) -> None:
    for number in range(LISTED):
        body = {"amount": 5, "currency": "USD", "metadata": {"text": "x" * 100_000}}
        created = gateway.client.post("/api/payments", json=body, headers={"Idempotency-Key": f"listed-{number}"})
        assert created.status_code == 201, created.text


@contextmanager
def not_reading(gateway: Gateway) -> Iterator[socket.socket]:
    """A client that asks for more than the system keeps for it."""
    request = b"GET /api/payments?limit=10 HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n" % (
        gateway.client.headers["Authorization"].encode()
    )
    with connected(gateway, receive_bytes=4096) as connection:
        connection.sendall(request * 10)
        yield connection


def open_connections(gateway: Gateway) -> int:
    port = gateway.client.base_url.port
    connections = psutil.Process(gateway.process.pid).net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port for each in connections)


def test_two_thousand_idle_connections(start: Start, folder: Path) -> None:
    """More than a program may have without asking for more. They cost little, and a stop does not wait for them."""
    with open_files(1024):
        gateway = start(MOCKPAY_RATE_LIMIT_TIER="unlimited", MOCKPAY_LOG_LEVEL="warning")
    gateway.register()
    before = memory(gateway)
    with open_files(IDLE_CONNECTIONS + 500), ExitStack() as stack:
        idle = [stack.enter_context(connected(gateway)) for _ in range(IDLE_CONNECTIONS)]
        for connection in idle[::2]:
            connection.sendall(b"GET /api/payments HTTP/1.1\r\n")
        wait_until(lambda: open_connections(gateway) > IDLE_CONNECTIONS)
        assert served(gateway) == {200}
        gateway.pay(None)
        assert memory(gateway) < before + 100 * MEBIBYTE
        assert gateway.stop() == 0
        assert until_closed(idle[0]) == until_closed(idle[1]) == b""
    assert "shutdown exceeded" not in gateway.output
    assert gateway.output.count("\n") < 20, gateway.output


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a database needs more files than there are here")
def test_those_who_only_connect_shut_out_each_other(folder: Path, data_dir: Path, used_data_dir: Path) -> None:
    """Nothing else of what needs a file: other clients, the database, webhooks. Nor does one who does not read stop a stop."""
    subprocess.run(["cp", "-a", used_data_dir, data_dir], check=True)
    settings = {
        "MOCKPAY_DATA_DIR": str(data_dir),
        "MOCKPAY_ADMIN_KEY": ADMIN_KEY,
        "MOCKPAY_RATE_LIMIT_TIER": "unlimited",
    }
    gateway = WithFewFiles(folder / "gateway.log", **settings)
    with running(gateway), ExitStack() as stack:
        gateway.end_velocity_rule(ADMIN_KEY)
        gateway.register()
        flood = [stack.enter_context(connected(gateway)) for _ in range(2 * FILES)]
        for connection in flood[::2]:
            with suppress(ConnectionError):
                connection.sendall(HEAD)
        assert until_closed(flood[0]) == b"", "the oldest made room"
        assert open_connections(gateway) < FILES
        make_payments_to_list(gateway)
        with httpx.Client(base_url=gateway.client.base_url, trust_env=False) as newcomer:
            assert newcomer.get("/ready").status_code == 200
        with not_reading(gateway) as connection:
            assert connection.recv(1), "its answer is on the way"
            assert gateway.stop() == 0
    assert "shutdown exceeded" not in gateway.output
    assert "Too many open files" not in gateway.output
    assert "Traceback" not in gateway.output


class WithFewFiles(Gateway):
    within = ("bash", "-c", f'ulimit -n {FILES} && exec "$@"', "bash")
