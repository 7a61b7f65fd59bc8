import contextlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockpay.cursor import Cursor
from mockpay.errors import ApiError, InvalidRequest
from mockpay.exact_json import encode
from mockpay.idempotency.model import is_valid_key, keyed_request
from mockpay.payments.requests import CreatePayment
from mockpay.tenants.model import Email, bearer_token, hash_api_key, is_admin_key, is_api_key
from mockpay.types import Amount, Currency, parse_time
from mockpay.web.body import decode_body

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.datetimes(min_value=datetime(1970, 1, 2)), st.uuids())
def test_a_cursor_survives_the_way_out_and_back(moment: datetime, id_: UUID) -> None:
    cursor = Cursor(moment.replace(tzinfo=UTC), id_)
    assert Cursor.decode(cursor.encode("payments"), "payments") == cursor
    with pytest.raises(ValueError, match="next_cursor"):
        Cursor.decode(cursor.encode("payments"), "deliveries")


@given(st.datetimes(min_value=datetime(1970, 1, 2)), st.uuids(), st.data())
def test_a_cursor_that_was_changed_anywhere_is_refused(moment: datetime, id_: UUID, data: st.DataObject) -> None:
    text = Cursor(moment.replace(tzinfo=UTC), id_).encode("payments")
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABCxyz019-_=+/").filter(lambda one: one != text[place]))
    for broken in (text[:place] + letter + text[place + 1 :], text[:place], text + letter):
        with pytest.raises(ValueError, match="next_cursor"):
            Cursor.decode(broken, "payments")


@given(st.text())
def test_any_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(ValueError, match="next_cursor"):
        Cursor.decode(text, "payments")


@given(st.text())
def test_a_time_has_an_offset_or_is_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_time(text).tzinfo is not None


@given(
    st.dictionaries(st.sampled_from(["amount", "currency", "webhook_url", "description", "metadata", "x"]), json_values)
)
def test_a_body_is_read_or_every_fault_is_named(body: dict[str, Any]) -> None:
    try:
        request = decode_body(msgspec.json.encode(body), CreatePayment)
    except InvalidRequest as error:
        assert error.details
        assert {fault.field for fault in error.details} <= {*body, "amount", "currency"}
    else:
        assert request.money.minor_units > 0


@given(st.binary())
def test_any_bytes_are_read_or_an_api_error(body: bytes) -> None:
    with pytest.raises(ApiError):
        decode_body(body, CreatePayment)


def request(**changes: Any) -> CreatePayment:
    return decode_body(encode({"amount": 5, "currency": "USD"} | changes), CreatePayment)


def test_requests_that_mean_the_same_have_one_fingerprint() -> None:
    same = [
        request(), request(amount="5.00"), request(currency="usd"), request(description=None),
        CreatePayment(Amount("5"), Currency("USD")),
    ]  # fmt: skip
    assert len({keyed_request("k", "create", each).fingerprint for each in same}) == 1
    metadata = [request(metadata={"a": 1, "b": 2}), request(metadata={"b": 2, "a": 1})]
    assert len({keyed_request("k", "create", each).fingerprint for each in metadata}) == 1


def test_requests_that_differ_have_not() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"amount": 6}, {"currency": "EUR"}, {"description": ""}, {"metadata": {}}, {"metadata": {"a": 1}},
        {"metadata": {"a": "1"}}, {"webhook_url": "http://h/"},
    ]  # fmt: skip
    assert len({keyed_request("k", "create", request(**change)).fingerprint for change in changes}) == len(changes)
    assert keyed_request("k", "a", request()).fingerprint != keyed_request("k", "b", request()).fingerprint


@given(st.text(max_size=300))
def test_keys_are_printable_ascii(key: str) -> None:
    assert is_valid_key(key) == (1 <= len(key) <= 255 and all(" " <= character <= "~" for character in key))


@pytest.mark.parametrize(("header", "key"), [
    (f"Bearer {'a1' * 32}", "a1" * 32), (f"bearer  {'a1' * 32} ", "a1" * 32), (None, None), ("Bearer", None),
    (f"Token {'a1' * 32}", None), (f"Bearer {'A1' * 32}", None), ("a1" * 32, None),
])  # fmt: skip
def test_bearer_keys(header: str | None, key: str | None) -> None:
    token = bearer_token(header)
    assert (token if is_api_key(token) else None) == key


@pytest.mark.parametrize(("set_key", "token", "accepted"), [
    ("a" * 16, "a" * 16, True), ("a" * 16, "a" * 17, False), ("a" * 16, None, False), (None, None, False),
    (None, "", False), ("ü" * 16, "ü" * 16, True),
])  # fmt: skip
def test_the_admin_key(set_key: str | None, token: str | None, accepted: bool) -> None:
    assert is_admin_key(set_key, token) is accepted


def test_a_stored_key_is_a_sha256() -> None:
    import hashlib

    assert hash_api_key("abc") == hashlib.sha256(b"abc").digest()


@pytest.mark.parametrize("text", ["dev@example.com", "a+b@x.test", "ü@example.org", "dev@münchen.example.org"])
def test_emails(text: str) -> None:
    assert "@" in Email.parse(text)


@pytest.mark.parametrize(
    "raw", ["", "x", "a@", "@b", "a b@example.com", "a@b@c.com", 1, None, "a" * 400 + "@example.com"]
)
def test_emails_that_are_none(raw: object) -> None:
    with pytest.raises(ValueError, match="e-mail address"):
        Email.parse(raw)
