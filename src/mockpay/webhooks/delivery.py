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
from mockpay.webhooks.address import AddressGuard, AddressRefused
from mockpay.webhooks.resolver import ConnectingResolver, Lookups, acting_for
from mockpay.webhooks.schedule import Schedule, is_final, is_success
from mockpay.webhooks.signing import SIGNATURE_HEADER, sign_standard, sign_with_all
from mockpay.webhooks.store import Claim, Result, Sent
from mockpay.webhooks.tampering import Sending, WebhookFault, parse, tampered

RESPONSE_BYTES_KEPT: Final = 4096
SLOW_BODY_PIECES: Final = 10

# The first that fits: the classes overlap.
_ERROR_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (AddressRefused, "address_refused"),
    (asyncio.TimeoutError, "timeout"),
    (aiohttp.ClientConnectorDNSError, "name_not_resolved"),
    (aiohttp.ClientSSLError, "tls_failed"),
    (ssl.SSLError, "tls_failed"),
    (ConnectionRefusedError, "connection_refused"),
    (ConnectionResetError, "connection_reset"),
    (BrokenPipeError, "connection_closed"),
    (aiohttp.ServerDisconnectedError, "connection_closed"),
    (aiohttp.ClientPayloadError, "connection_closed"),
    (aiohttp.InvalidURL, "invalid_url"),
    (aiohttp.ClientResponseError, "invalid_response"),
)


class Prepared(msgspec.Struct, frozen=True):
    """`body_seconds` is how long the body takes to be sent, where a fault makes it slow."""

    url: str
    body: bytes
    headers: dict[str, str]
    body_seconds: float = 0.0


class Outcome(msgspec.Struct, frozen=True):
    """What came back: a status and the start of the body, or the kind of error."""

    duration_seconds: float
    response_status: int | None = None
    response_body: str | None = None
    error: str | None = None


DROPPED: Final = Outcome(0.0, error="dropped")
"""Of a message that a fault lost on its way."""


def acting_fault(claim: Claim) -> WebhookFault | None:
    """What spoils this attempt. A replay is always sent as it should be."""
    if claim.fault is None or claim.attempts_before_replay > 0:
        return None
    fault = parse(claim.fault)
    return fault if claim.attempt <= fault.attempts else None


def prepare(claim: Claim, now: datetime) -> list[Prepared]:
    """What to send: one message, but for a fault that loses it or multiplies it.

    The stored bytes are signed. The timestamp is that of the attempt, so that a receiver can refuse a stale one.
    """
    body = claim.payload.encode()
    sending = Sending(body=body, secrets=claim.secrets, timestamp_seconds=int(now.timestamp()))
    fault = acting_fault(claim)
    if fault:
        sending = tampered(sending, fault, claim.old_secret)
    event_id = str(claim.event_id)
    headers = {
        "Content-Type": sending.content_type,
        "User-Agent": f"MockPay/{__version__}",
        SIGNATURE_HEADER: sign_with_all(body, sending.secrets),
        "X-MockPay-Event": claim.event,
        "X-MockPay-Delivery": str(claim.id),
        "X-MockPay-Attempt": str(claim.attempt),
        "webhook-id": event_id,
        "webhook-timestamp": str(sending.timestamp_seconds),
        "webhook-signature": sign_standard(body, event_id, sending.timestamp_seconds, sending.secrets),
    }
    message = Prepared(claim.url, sending.body, headers, sending.body_seconds)
    return [message] * (fault.messages if fault else 1)


@asynccontextmanager
async def open_session(
    guard: AddressGuard, lookups: Lookups, timeout_seconds: float
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that follows no proxy settings, keeps no cookies, and connects only where the guard allows."""
    connector = aiohttp.TCPConnector(
        limit=0, resolver=ConnectingResolver(lookups), use_dns_cache=False, socket_factory=guard.open_socket
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        # A kilobyte may unpack to a gigabyte. So nothing is unpacked, and none is asked to pack.
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
    ) as session:
        yield session


async def send_all(session: aiohttp.ClientSession, claim: Claim, messages: list[Prepared]) -> list[Sent]:
    """Side by side: copies that come one after the other would find a receiver that checks first and stores later."""
    fault = acting_fault(claim)
    if not messages:
        return [told(fault, None, DROPPED)]
    with acting_for(claim.tenant_id):
        outcomes = await asyncio.gather(*(send(session, message) for message in messages))
    return [told(fault, message, outcome) for message, outcome in zip(messages, outcomes, strict=True)]


async def send(session: aiohttp.ClientSession, prepared: Prepared) -> Outcome:
    """POST it. Every failure of the receiver or the network is an outcome, never an exception."""
    started = time.monotonic()
    body: bytes | AsyncIterator[bytes] = prepared.body
    headers = prepared.headers
    if prepared.body_seconds:
        body = _slowly(prepared.body, prepared.body_seconds)
        headers = headers | {"Content-Length": str(len(prepared.body))}
    try:
        async with session.post(prepared.url, data=body, headers=headers, allow_redirects=False) as response:
            answer = await _start_of_body(response)
            return Outcome(time.monotonic() - started, response.status, answer)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        return Outcome(time.monotonic() - started, error=error_kind(error))


async def _slowly(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    size = -(-len(body) // SLOW_BODY_PIECES)
    for start in range(0, len(body), size):
        await asyncio.sleep(seconds / SLOW_BODY_PIECES)
        yield body[start : start + size]


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
    cause: BaseException = error
    if type(error) is aiohttp.ClientConnectorError:
        cause = error.os_error
    elif type(error) is aiohttp.ClientOSError:
        cause = error.__cause__ or error
    return next((name for kind, name in _ERROR_KINDS if isinstance(cause, kind)), "connection_failed")


def told(fault: WebhookFault | None, message: Prepared | None, outcome: Outcome) -> Sent:
    """One message as it is kept in the log: with what was sent, if that was not what it should have been."""
    spoilt = message if fault else None
    return Sent(
        duration_milliseconds=round(outcome.duration_seconds * 1000),
        response_status=outcome.response_status,
        response_body=outcome.response_body,
        error=outcome.error,
        headers=msgspec.json.encode(spoilt.headers).decode() if spoilt else None,
        body=spoilt.body.decode("utf-8", errors="replace") if spoilt else None,
    )


def judge(claim: Claim, sent: list[Sent], schedule: Schedule, started_at: datetime, random: float) -> Result:
    """What the outcome makes of the delivery. Pure; `random` is from 0 to 1.

    If it was sent several times, one that was accepted is enough.
    """
    telling = next((each for each in sent if is_success(each.response_status)), sent[0])
    delay = timedelta(0)
    if is_success(telling.response_status):
        status = "delivered"
    elif is_final(telling.response_status) or claim.attempt >= claim.max_attempts:
        status = "dead"
    else:
        status = "pending"
        delay = schedule.delay_after(claim.attempt - claim.attempts_before_replay, random)
    return Result(
        status=status,
        delay=delay,
        started_at=started_at,
        fault=claim.fault if acting_fault(claim) else None,
        sent=sent,
        telling=telling,
    )
