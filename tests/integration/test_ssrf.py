"""No URL leads a webhook into a private network, however it is spelled, and by whichever way it came.

And what a receiver answers does no harm.
"""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import httpx
import pytest

from mockpay.app import open_parts
from mockpay.payments import service as payments
from mockpay.payments.requests import ChangePayment
from mockpay.settings import Settings
from mockpay.tenants.service import Credentials
from mockpay.webhooks.address import AddressGuard, WebhookUrl
from mockpay.webhooks.delivery import RESPONSE_BYTES_KEPT, Outcome, Prepared, open_session, send
from mockpay.webhooks.resolver import Lookups
from tests.integration.conftest import ADMIN_KEY, open_client
from tests.support.databases import TEMPLATE, new_database
from tests.support.document import Operation, at, operations
from tests.support.fakes import Receiver
from tests.support.gateway import Gateway, bearer, register
from tests.support.servers import Server
from tests.support.wire import Wire

PRODUCTION = Settings(env="production", admin_key=ADMIN_KEY, rate_limit_tier="unlimited")
PRIVATE_HOSTS = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "0.0.0.0", "0", "127.8.9.1",
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "2852039166", "100.64.0.1", "168.63.129.16", "192.0.0.192",
    "224.0.0.1", "255.255.255.255", "localhost", "LOCALHOST", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[fe80::1]", "[fc00::1]", "[fec0::1]",
    "[fd00:ec2::254]", "[ff02::1]", "[3fff::1]", "[4000::1]", "\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021",
]  # fmt: skip
"""Spelled in all the ways that a resolver of the system, or a URL's own rules, make an address of."""
NO_URLS = [
    "file:///etc/passwd", "ftp://8.8.8.8/", "gopher://127.0.0.1:6379/_FLUSHALL", "dict://127.0.0.1:11211/stats",
    "ldap://127.0.0.1/", "unix:///tmp/socket", "javascript:alert(1)", "data:,x", "//127.0.0.1/", "http:127.0.0.1",
    "http://8.8.8.8@127.0.0.1/", "http://127.0.0.1@8.8.8.8/", "http://user:password@8.8.8.8/", "http://:x@8.8.8.8/",
    "http://8.8.8.8\\@127.0.0.1/", "http://8.8.8.8/\r\nHost: x", "http://8.8.8.8/\n", "http://8.8.8.8\t/", "\u2028http://8.8.8.8/",
    "http://8.8.8.8:0/", "http://8.8.8.8:99999/", "http://[::1/", "http://[::1%25lo/", "http://",
]  # fmt: skip


def routes_of_a_url() -> list[Operation]:
    """Every one of the document that takes a URL, so that a new one can't be forgotten here."""
    return [each for each in operations() for schema in each.fields.values() if schema.get("format") == "uri"]


@pytest.fixture(scope="module")
async def production(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A tenant's client of a server in production mode."""
    async with new_database(server, TEMPLATE) as name, open_client(server.url(name), PRODUCTION) as http:
        await register(http)
        yield http


@pytest.fixture
def strict() -> AddressGuard:
    """Of a production server, whose registrations are told of public addresses only: names resolve otherwise later."""

    async def resolve(_tenant_id: UUID, _host: str, _port: int) -> list[str]:
        return ["8.8.8.8"]

    return AddressGuard(allow_private=False, resolve=resolve)


async def attempt(guard: AddressGuard, url: str, timeout_seconds: float = 2) -> Outcome:
    async with open_session(guard, Lookups(), timeout_seconds) as session:
        return await send(session, Prepared(url, b"{}", {}))


def test_the_routes_are_found() -> None:
    assert {each.name for each in routes_of_a_url()} >= {"create_payment", "change_payment", "change_me"}


@pytest.mark.parametrize("operation", routes_of_a_url(), ids=str)
async def test_a_private_address_is_refused_by_every_route(production: httpx.AsyncClient, operation: Operation) -> None:
    url = at(operation.path, await a_payment(production))
    [name] = [name for name, schema in operation.fields.items() if schema.get("format") == "uri"]
    urls = [
        f"{scheme}://{host}{rest}" for host in PRIVATE_HOSTS for scheme, rest in (("http", "/"), ("https", ":8443/x"))
    ]
    answers = await asyncio.gather(
        *(
            production.request(
                operation.method, url, json=operation.minimal | {name: each}, headers={"Idempotency-Key": f"k{number}"}
            )
            for number, each in enumerate([*urls, *NO_URLS])
        )
    )
    accepted = [each for each, answer in zip([*urls, *NO_URLS], answers, strict=True) if answer.status_code != 400]
    assert accepted == []
    assert {fault["field"] for answer in answers for fault in answer.json()["details"]} == {name}
    allowed = await production.request(
        operation.method,
        url,
        json=operation.minimal | {name: "http://8.8.8.8:8080/"},
        headers={"Idempotency-Key": "public"},
    )
    assert allowed.is_success, "or the refusals would show nothing"


async def a_payment(client: httpx.AsyncClient) -> str:
    body = {"amount": 5, "currency": "USD"}
    created = await client.post("/api/payments", json=body, headers={"Idempotency-Key": "one"})
    id_: str = created.json()["id"]
    return id_


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_no_connection_is_made_to_a_private_address(receiver: Receiver, strict: AddressGuard, host: str) -> None:
    """Though it was accepted once: in development, or because the name resolved to something else."""
    url = f"http://{host}:{receiver.port}/"
    assert await strict.problem_with(uuid4(), url) is None
    assert (await attempt(strict, url)).error == "address_refused"
    assert receiver.received == []
    assert (await attempt(AddressGuard(allow_private=True), url)).response_status == 200, "or it would show nothing"


@pytest.mark.parametrize("host", [*PRIVATE_HOSTS, "127.0.0.1.", "%31%32%37.0.0.1", "[::ffff:127.0.0.1%25lo]"])
async def test_no_spelling_reaches_what_listens_on_this_machine(
    receiver: Receiver, strict: AddressGuard, host: str
) -> None:
    outcome = await attempt(strict, f"http://{host}:{receiver.port}/")
    assert outcome.error in ("address_refused", "invalid_url", "name_not_resolved")
    assert receiver.received == []


async def test_the_worker_of_production_is_a_strict_one(
    gateway: Gateway, receiver: Receiver, database_url: str, superuser: Any
) -> None:
    """Put together as `serve` and `worker` do it; what is queued was registered where that was allowed."""
    await gateway.succeeded("k")
    async with open_parts(PRODUCTION, database_url) as (_, worker):
        assert await worker.run_due() == 1
    assert await superuser.fetchval("SELECT error FROM delivery_attempts") == "address_refused"
    assert receiver.received == []


async def test_a_replay_to_a_changed_url_is_checked_like_any_other(
    gateway: Gateway, client: httpx.AsyncClient, credentials: Credentials, receiver: Receiver, strict: AddressGuard
) -> None:
    """The name resolved to a public address when it was registered, and leads here when it is called."""
    settings = replace(gateway.context.settings, webhook_attempts=1)
    gateway.context = replace(gateway.context, address_guard=strict, settings=settings)
    payment = await gateway.succeeded("k")
    worker = gateway.worker()
    await worker.run_due()
    change = ChangePayment(webhook_url=WebhookUrl(f"http://localhost:{receiver.port}/changed"))
    await payments.edit(gateway.context, gateway.tenant, payment.id, change)
    deliveries = "/api/webhooks/deliveries"
    [delivery] = (await client.get(deliveries, headers=bearer(credentials.api_key))).json()["data"]
    replay = f"{deliveries}/{delivery['id']}/replay"
    assert (await client.post(replay, headers=bearer(credentials.api_key))).status_code == 202
    await worker.run_due()
    [delivery] = (await client.get(deliveries, headers=bearer(credentials.api_key))).json()["data"]
    attempts = [(each["url"], each["error"]) for each in delivery["attempt_log"]]
    assert attempts == [(receiver.url, "address_refused"), (change.webhook_url, "address_refused")]
    assert receiver.received == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    receiver.answer_headers = {"Location": "/inside", "Refresh": "0; url=/inside"}
    outcome = await attempt(AddressGuard(allow_private=True), receiver.url)
    assert (outcome.response_status, [each.path for each in receiver.received]) == (status, ["/webhooks"])


async def test_a_line_end_in_a_url_makes_no_header() -> None:
    wire = Wire()
    try:
        url = wire.url + "/%0d%0aX-Evil:%201%0d%0a%0d%0a?a=%0D%0AX-Evil:%201"
        assert (await attempt(AddressGuard(allow_private=True), url)).response_status == 200
    finally:
        wire.close()
    [arrived] = wire.arrived
    assert "x-evil" not in arrived.headers
    assert "%0D%0AX-Evil" in arrived.head


ZEROS = b"\0" * 2_000_000
PACKED = gzip.compress(ZEROS)
BOMBS = {
    "gzip": PACKED, "deflate": zlib.compress(ZEROS), "br": PACKED, "zstd": PACKED, "gzip, gzip": gzip.compress(PACKED),
}  # fmt: skip


@pytest.mark.parametrize("encoding", BOMBS)
async def test_a_packed_answer_is_kept_as_it_came(receiver: Receiver, encoding: str) -> None:
    """2 MB in 2 KB. Nothing unpacks them, and the request had asked for them unpacked."""
    body = BOMBS[encoding]
    receiver.answer_headers, receiver.answer_body = {"Content-Encoding": encoding}, body
    outcome = await attempt(AddressGuard(allow_private=True), receiver.url)
    kept = body[:RESPONSE_BYTES_KEPT].decode("utf-8", errors="replace").replace("\0", "\ufffd")
    assert outcome.response_body == kept
    assert receiver.received[0].headers["Accept-Encoding"] == "identity"


@asynccontextmanager
async def endless(start: bytes, piece: bytes) -> AsyncIterator[str]:
    """The URL of a receiver that goes on answering for as long as it is listened to."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(start)
        try:
            while True:
                writer.write(piece)
                await writer.drain()
        except OSError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "headers": (OK, b"X-Filler: 1\r\n" * 100, "invalid_response"),
    "a header": (OK + b"X-Long: ", b"x" * 10_000, "invalid_response"),
    "the first line": (b"HTTP/1.1 200 ", b"x" * 10_000, "invalid_response"),
    "interim answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n", "timeout"),
    "a body": (OK + b"Content-Length: 2000000000\r\n\r\n", b"x" * 10_000, None),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 999, None),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_an_answer_without_end_is_broken_off(what: str) -> None:
    start, piece, error = ENDLESS[what]
    timeout = 0.3 if error else 10
    async with endless(start, piece) as url:
        outcome = await attempt(AddressGuard(allow_private=True), url, timeout_seconds=timeout)
    assert outcome.error == error
    if error is None:
        assert outcome.duration_seconds < timeout / 2, "it was read for as long as there was time"
    assert len(outcome.response_body or "") <= RESPONSE_BYTES_KEPT


async def test_no_proxy_of_the_environment_is_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would connect in our place, past the guard."""
    monkeypatch.setenv("HTTP_PROXY", receiver.url)
    async with open_session(AddressGuard(allow_private=True), Lookups(), 1) as session:
        assert not session.trust_env
        assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
        await send(session, Prepared("http://127.0.0.1:1/", b"{}", {}))
    assert receiver.received == []
