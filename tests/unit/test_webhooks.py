"""Signing, the schedule, what becomes of an outcome, where a webhook may go, and what the receiver prints."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook
from yarl import URL

from mockpay.settings import Settings
from mockpay.webhooks.address import AddressGuard, AddressRefused, WebhookUrl, is_public
from mockpay.webhooks.delivery import error_kind, judge, prepare
from mockpay.webhooks.listener import describe
from mockpay.webhooks.schedule import Schedule
from mockpay.webhooks.signing import (
    sign,
    sign_standard,
    sign_with_all,
    standard_webhooks_secret,
    verify,
    verify_standard,
)
from mockpay.webhooks.store import Claim, Sent
from mockpay.webhooks.verify_demo import cases
from tests.support.fakes import START

SECRET, OTHER = "ab" * 32, "cd" * 32
secrets = st.binary(min_size=32, max_size=32).map(bytes.hex)
SCHEDULE = Schedule(max_attempts=3, backoff_seconds=2, timeout_seconds=5)


def claim(attempt: int = 1, keys: list[str] | None = None) -> Claim:
    return Claim(
        tenant_id=UUID(int=1), id=UUID(int=2), event_id=UUID(int=3), event="payment.success", url="http://h/",
        receiver_host="h:80", payload='{"a":"ü"}', attempt=attempt, attempts_before_replay=0, max_attempts=3, secrets=keys or [SECRET],
    )  # fmt: skip


@given(st.binary(), secrets)
def test_a_signature_is_what_hmac_says(body: bytes, secret: str) -> None:
    assert sign(body, secret) == "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert verify(body, sign(body, secret), secret)


@given(st.binary(), st.binary(), secrets, secrets)
def test_nothing_else_verifies(body: bytes, other_body: bytes, secret: str, other_secret: str) -> None:
    if body != other_body:
        assert not verify(other_body, sign(body, secret), secret)
    if secret != other_secret:
        assert not verify(body, sign(body, other_secret), secret)
    for wrong in ("", "sha256=", sign(body, secret)[:-1], sign(body, secret).removeprefix("sha256="), "ü"):
        assert not verify(body, wrong, secret)


@given(st.text(), secrets)
def test_the_standard_webhooks_package_agrees(body: str, secret: str) -> None:
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "msg", "webhook-timestamp": str(now),
        "webhook-signature": sign_standard(body.encode(), "msg", now, [OTHER, secret]),
    }  # fmt: skip
    webhook = Webhook(standard_webhooks_secret(secret))
    assert webhook.sign("msg", datetime.fromtimestamp(now, UTC), body) in headers["webhook-signature"].split(" ")
    assert verify_standard(body.encode(), "msg", now, headers["webhook-signature"], secret)
    assert not verify_standard(body.encode(), "msg", now + 1, headers["webhook-signature"], secret)


def test_every_live_secret_signs() -> None:
    signature = sign_with_all(b"x", [SECRET, OTHER])
    assert verify(b"x", signature, SECRET)
    assert verify(b"x", signature, OTHER)


def test_prepare_signs_the_stored_bytes_at_the_time_of_the_attempt() -> None:
    [prepared] = prepare(claim(attempt=2), START)
    assert prepared.body == '{"a":"ü"}'.encode()
    assert verify(prepared.body, prepared.headers["X-MockPay-Signature"], SECRET)
    assert prepared.headers["webhook-timestamp"] == str(int(START.timestamp()))
    assert (prepared.headers["X-MockPay-Attempt"], prepared.headers["X-MockPay-Event"]) == ("2", "payment.success")
    assert (prepared.headers["X-MockPay-Delivery"], prepared.headers["webhook-id"]) == (
        str(UUID(int=2)),
        str(UUID(int=3)),
    )


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_backoff_never_undercuts_its_documented_wait(attempt: int, random: float) -> None:
    documented = min(2.0 * 2 ** min(attempt - 1, 40), 86_400)
    delay = SCHEDULE.delay_after(attempt, random).total_seconds()
    assert documented - 1e-6 <= delay <= documented * 1.5 + 1e-6


def test_the_lease_outlasts_the_timeout() -> None:
    assert SCHEDULE.lease > timedelta(seconds=SCHEDULE.timeout_seconds)
    assert Schedule.of(Settings()) == SCHEDULE


@pytest.mark.parametrize(("response_status", "attempt", "status"), [
    (200, 1, "delivered"), (204, 3, "delivered"), (299, 1, "delivered"), (300, 1, "pending"), (199, 1, "pending"),
    (500, 1, "pending"), (500, 2, "pending"), (500, 3, "dead"), (410, 1, "dead"), (None, 2, "pending"), (None, 3, "dead"),
])  # fmt: skip
def test_what_becomes_of_a_delivery(response_status: int | None, attempt: int, status: str) -> None:
    sent = Sent(
        duration_milliseconds=250, response_status=response_status, error=None if response_status else "timeout"
    )
    result = judge(claim(attempt), [sent], SCHEDULE, START, 0.0)
    assert result.status == status
    assert result.delay == (timedelta(seconds=2**attempt) if status == "pending" else timedelta(0))
    assert result.telling.duration_milliseconds == 250
    assert (result.last_error is None) == (status == "delivered")


@pytest.mark.parametrize(("error", "kind"), [
    (TimeoutError(), "timeout"), (aiohttp.ServerTimeoutError(), "timeout"), (ConnectionRefusedError(), "connection_refused"),
    (ConnectionResetError(), "connection_reset"), (aiohttp.ServerDisconnectedError(), "connection_closed"),
    (AddressRefused(), "address_refused"), (aiohttp.InvalidURL("x"), "invalid_url"), (OSError(), "connection_failed"),
    (aiohttp.ClientOSError(), "connection_failed"),
])  # fmt: skip
def test_error_kinds(error: BaseException, kind: str) -> None:
    assert error_kind(error) == kind


@pytest.mark.parametrize(("cause", "kind"), [
    (ConnectionResetError(), "connection_reset"), (BrokenPipeError(), "connection_closed"), (OSError(), "connection_failed"),
])  # fmt: skip
def test_error_kinds_of_what_is_wrapped(cause: OSError, kind: str) -> None:
    error = aiohttp.ClientOSError(*cause.args)
    error.__cause__ = cause
    assert error_kind(error) == kind


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0.0.0.0",
    "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "192.0.2.1",
    "168.63.129.16", "192.0.0.192", "fec0::1", "64:ff9b:1::7f00:1", "::127.0.0.1",
])  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(("addresses", "refused"), [
    (["8.8.8.8"], False), (["127.0.0.1"], True), (["8.8.8.8", "10.0.0.1"], True), (None, False),
])  # fmt: skip
async def test_the_guard_at_registration(addresses: list[str] | None, refused: bool) -> None:
    async def resolve(_tenant_id: UUID, _host: str, _port: int) -> list[str]:
        if addresses is None:
            raise OSError("no such name")
        return addresses

    guard = AddressGuard(allow_private=False, resolve=resolve)
    assert (await guard.problem_with(uuid4(), "https://receiver.example/hook") is not None) is refused
    assert await AddressGuard(allow_private=True, resolve=resolve).problem_with(uuid4(), "http://localhost/") is None


def test_the_guard_at_connection_time() -> None:
    import socket

    info: Any = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))
    with pytest.raises(AddressRefused):
        AddressGuard(allow_private=False).open_socket(info)
    AddressGuard(allow_private=True).open_socket(info).close()


@given(st.text())
def test_a_url_is_usable_or_a_value_error(text: str) -> None:
    for candidate in (text, f"http://{text}", f"http://h/{text}"):
        try:
            url = WebhookUrl.parse(candidate)
        except ValueError:
            continue
        assert URL(url).host


def test_the_demo_shows_what_it_claims() -> None:
    shown = [(case.name, case.accepted) for case in cases()]
    assert shown == [
        ("valid signature", True), ("tampered body", False), ("wrong secret", False), ("empty signature", False),
        ("signature of another body", False),
    ]  # fmt: skip


def test_the_receiver_prints_verdicts_and_no_escape_sequences() -> None:
    [prepared] = prepare(claim(), START)
    shown = describe("POST", "/x\x1b[2J", prepared.headers, prepared.body, SECRET)
    assert shown.count("VALID") == 2
    assert "INVALID" not in shown
    assert "\x1b" not in shown
    assert describe("POST", "/", prepared.headers, prepared.body, OTHER).count("INVALID") == 2
    assert describe("POST", "/", {"webhook-timestamp": "x"}, b"\xff\x1b", SECRET).count("INVALID") == 2
    assert "not checked" in describe("POST", "/", prepared.headers, prepared.body, None)
