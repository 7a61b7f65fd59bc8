"""One attempt: prepare it, send it, judge the outcome. Only `send` touches the network; no transaction is open then."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

import aiohttp
import msgspec

from mockpay import __version__
from mockpay.webhooks.address import AddressGuard, AddressRefused, ThreadedResolver
from mockpay.webhooks.schedule import Schedule, is_final, is_success
from mockpay.webhooks.signing import SIGNATURE_HEADER, sign_standard, sign_with_all
from mockpay.webhooks.store import Claim, Result

RESPONSE_BYTES_KEPT: Final = 4096

# The first that fits: the classes overlap.
_ERROR_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (AddressRefused, "address_refused"),
    (asyncio.TimeoutError, "timeout"),
    (aiohttp.ClientConnectorDNSError, "name_not_resolved"),
    (aiohttp.ClientSSLError, "tls_failed"),
    (ssl.SSLError, "tls_failed"),
    (ConnectionRefusedError, "connection_refused"),
    (ConnectionResetError, "connection_reset"),
    (aiohttp.ServerDisconnectedError, "connection_closed"),
    (aiohttp.ClientPayloadError, "connection_closed"),
    (aiohttp.InvalidURL, "invalid_url"),
    (aiohttp.ClientResponseError, "invalid_response"),
)


class Prepared(msgspec.Struct, frozen=True):
    url: str
    body: bytes
    headers: dict[str, str]


class Outcome(msgspec.Struct, frozen=True):
    """What came back: a status and the start of the body, or the kind of error."""

    duration_seconds: float
    response_status: int | None = None
    response_body: str | None = None
    error: str | None = None


def prepare(claim: Claim, now: datetime) -> Prepared:
    """Sign the stored bytes. The timestamp is that of the attempt, so that a receiver can refuse a stale one."""
    body = claim.payload.encode()
    timestamp_seconds = int(now.timestamp())
    event_id = str(claim.event_id)
    return Prepared(
        claim.url,
        body,
        {
            "Content-Type": "application/json",
            "User-Agent": f"MockPay/{__version__}",
            SIGNATURE_HEADER: sign_with_all(body, claim.secrets),
            "X-MockPay-Event": claim.event,
            "X-MockPay-Delivery": str(claim.id),
            "X-MockPay-Attempt": str(claim.attempt),
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp_seconds),
            "webhook-signature": sign_standard(body, event_id, timestamp_seconds, claim.secrets),
        },
    )


@asynccontextmanager
async def open_session(guard: AddressGuard, timeout_seconds: float) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that follows no proxy settings, keeps no cookies, and connects only where the guard allows."""
    resolver = ThreadedResolver()
    connector = aiohttp.TCPConnector(limit=0, resolver=resolver, socket_factory=guard.open_socket)
    try:
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as session:
            yield session
    finally:
        await resolver.close()  # a connector leaves a resolver that it was given to its giver


async def send(session: aiohttp.ClientSession, prepared: Prepared) -> Outcome:
    """POST it. Every failure of the receiver or the network is an outcome, never an exception."""
    started = time.monotonic()
    try:
        async with session.post(
            prepared.url, data=prepared.body, headers=prepared.headers, allow_redirects=False
        ) as response:
            body = await _start_of_body(response)
            return Outcome(time.monotonic() - started, response.status, body)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        return Outcome(time.monotonic() - started, error=error_kind(error))


async def _start_of_body(response: aiohttp.ClientResponse) -> str:
    """The first 4 KiB, as text that PostgreSQL can store. The status is there: a broken-off body changes nothing."""
    kept = b""
    try:
        while len(kept) < RESPONSE_BYTES_KEPT:
            chunk = await response.content.read(RESPONSE_BYTES_KEPT - len(kept))
            if not chunk:
                break
            kept += chunk
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    if not response.content.at_eof():
        response.close()  # rather than read a body without end to reuse the connection
    return kept.decode("utf-8", errors="replace").replace("\0", "�")


def error_kind(error: BaseException) -> str:
    """A stable name for why no answer came."""
    # aiohttp wraps what the system said; its subclasses (DNS, TLS) say more than what they wrap.
    cause = error.os_error if type(error) is aiohttp.ClientConnectorError else error
    return next((name for kind, name in _ERROR_KINDS if isinstance(cause, kind)), "connection_failed")


def judge(claim: Claim, outcome: Outcome, schedule: Schedule, started_at: datetime, random: float) -> Result:
    """What the outcome makes of the delivery. Pure; `random` is from 0 to 1."""
    delay = timedelta(0)
    if is_success(outcome.response_status):
        status = "delivered"
    elif is_final(outcome.response_status) or claim.attempt >= claim.max_attempts:
        status = "dead"
    else:
        status = "pending"
        delay = schedule.delay_after(claim.attempt - claim.attempts_before_replay, random)
    return Result(
        status=status,
        delay=delay,
        started_at=started_at,
        duration_milliseconds=round(outcome.duration_seconds * 1000),
        response_status=outcome.response_status,
        response_body=outcome.response_body,
        error=outcome.error,
    )
