"""Whatever a client sends as a cursor, an amount, a header or a scenario's file is read, or refused by its name."""

import base64
import struct
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mockpay.cursor import Cursor, _checksum
from mockpay.errors import ApiError, InvalidRequest
from mockpay.faults.model import HEADER, TAKES, Injection, parse
from mockpay.idempotency.model import KeyedRequest
from mockpay.payments.actions import _keyed
from mockpay.payments.requests import CreatePayment
from mockpay.scenarios.model import Scenario, read_scenario
from mockpay.scenarios.requests import FILE_LENGTH_MAX, RunScenario
from mockpay.tenants.model import bearer_token, is_admin_key, is_api_key
from mockpay.types import CURRENCY_EXPONENTS, MAX_MAJOR_UNITS, Amount, Currency
from mockpay.web.body import decode_body
from mockpay.web.pages import read_page
from mockpay.web.parameters import QueryReader

CPU_SECONDS_MAX = 2
"""Of the process itself, so that a busy machine fails no test. The slowest takes an eighth of a second."""

header_values = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))
"""What the server lets through: of bytes, each a character."""


@given(st.text() | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")))
@example("")
@example("é" * 43)
@example("A" * 100_000)
def test_what_is_no_cursor_is_named(text: str) -> None:
    reader = QueryReader([("cursor", text)], ["limit", "cursor"])
    assert read_page(reader, "payments").after is None
    with pytest.raises(InvalidRequest) as raised:
        reader.finish()
    assert [fault.field for fault in raised.value.details] == ["cursor"]


@given(st.integers(0, 255), st.integers(-(2**63), 2**63 - 1), st.binary(min_size=16, max_size=16))
def test_whoever_works_the_checksum_out_gets_a_cursor_or_a_refusal(version: int, moment: int, id_: bytes) -> None:
    """No error but the one: a time beyond the calendar has a right checksum too."""
    content = struct.pack(">Bq16s", version, moment, id_)
    text = base64.urlsafe_b64encode(content + _checksum("payments", content)).decode().rstrip("=")
    try:
        cursor = Cursor.decode(text, "payments")
    except ValueError as error:
        assert "next_cursor" in str(error)
    else:
        assert (version, cursor.id.bytes, cursor.encode("payments")) == (1, id_, text)


@given(st.datetimes(), st.uuids())
def test_a_cursor_of_any_time_survives_the_way_out_and_back(moment: datetime, id_: UUID) -> None:
    cursor = Cursor(moment.replace(tzinfo=UTC), id_)
    reader = QueryReader([("cursor", cursor.encode("payments"))], ["limit", "cursor"])
    assert read_page(reader, "payments").after == cursor
    reader.finish()


decimal_texts = st.one_of(
    st.from_regex(r"-?[0-9]{1,45}(\.[0-9]{0,45})?([eE][+-]?[0-9]{1,9})?", fullmatch=True),
    st.decimals(0, MAX_MAJOR_UNITS, places=2).map(str),
    st.decimals(0, MAX_MAJOR_UNITS, places=5).map(str),
    st.sampled_from(
        ["NaN", "Infinity", "-0", "0.0", "1e-9999999", "9e9999999", "1_000", " 5", "\u0665", "+5", "5.", ".5", "0x5"]
    ),
)


@given(decimal_texts, st.sampled_from(sorted(CURRENCY_EXPONENTS)), st.booleans())
def test_any_decimal_is_exact_money_or_refused(text: str, code: str, is_string: bool) -> None:
    raw = f'"{text}"' if is_string else text
    try:
        money = decode_body(f'{{"amount": {raw}, "currency": "{code}"}}'.encode(), CreatePayment).money
    except InvalidRequest as error:
        assert [fault.field for fault in error.details] == ["amount"]
    except ApiError as error:
        assert error.code == "malformed_json"
        assert not is_string, "as a string it is JSON"
    else:
        assert type(money.minor_units) is int
        assert type(money.major_units()) is Decimal
        assert money.major_units() == Decimal(text)
        assert 0 < money.minor_units <= MAX_MAJOR_UNITS * 10 ** Currency(code).exponent


@given(st.floats())
def test_an_amount_is_never_a_float(value: float) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        Amount.parse(value)


@given(st.floats(min_value=0.0001, max_value=MAX_MAJOR_UNITS))
def test_a_number_of_a_body_is_the_one_that_is_written_there(value: float) -> None:
    """0.1 is a tenth, though no float is."""
    try:
        money = decode_body(msgspec.json.encode({"amount": value, "currency": "CLF"}), CreatePayment).money
    except InvalidRequest as error:
        assert [fault.field for fault in error.details] == ["amount"]
    else:
        assert money.major_units() == Decimal(repr(value))


@given(header_values | st.text())
@example("k" * 255)
@example("k" * 256)
@example(" k  ")
@example("   ")
def test_an_idempotency_key_is_taken_as_it_is_or_named(key: str) -> None:
    """But for spaces around it, which don't count."""
    try:
        keyed = _keyed(key, "create", CreatePayment(Amount("5"), Currency("USD")))
    except InvalidRequest as error:
        assert [fault.field for fault in error.details] == ["Idempotency-Key"]
    else:
        assert isinstance(keyed, KeyedRequest)
        assert keyed.key == key.strip(" ") != ""


@given(header_values | st.text())
def test_any_authorization_is_a_key_or_none(header: str) -> None:
    token = bearer_token(header)
    assert token is None or token == token.strip() != ""
    assert not (is_api_key(token) and is_admin_key("a" * 16, token))


parameters = st.tuples(
    st.sampled_from(["seconds", "median", "p99", "seed", "status", "code", "as", "x", ""]),
    st.sampled_from(["=", " = ", "", "=="]),
    st.one_of(
        st.sampled_from(
            ["1", "0.5-4", "503", "busy", "reset", "timeout", "error", "", "-", "nan", "inf", "1e9", "\u00b2", "\u0663"]
        ),
        st.from_regex(r"[0-9]{1,20}(\.[0-9]{0,5})?(-[0-9]{0,20})?", fullmatch=True),
    ),
).map("".join)
fault_headers = st.tuples(st.sampled_from(sorted(TAKES)), st.lists(parameters, max_size=4)).map(
    lambda parts: "; ".join([parts[0], *parts[1]])
)


@given(fault_headers | header_values | st.text())
def test_any_fault_is_told_as_it_is_read_or_named(header: str) -> None:
    try:
        injection = parse(header)
    except InvalidRequest as error:
        assert [fault.field for fault in error.details] == [HEADER]
        assert error.details[0].message
    else:
        assert isinstance(injection, Injection)
        drawn = injection.drawn(5, HEADER)
        assert parse(str(drawn)).drawn(5, HEADER).wait == drawn.wait
        assert str(drawn).isascii()
        assert str(drawn).isprintable()


def dotted(depth: int) -> str:
    return ".".join(["a"] * depth)


@pytest.mark.parametrize("text", [
    dotted(4_000) + " = 1", f"[{dotted(4_000)}]", f"[[{dotted(4_000)}]]", f"a = {{{dotted(4_000)} = 1}}", "a = " + "[" * 8_000, "a = " + "{a = " * 2_000,
    "".join(f"[{dotted(depth)}]\n" for depth in range(1, 100)), "[[faults]]\n" * 740, "".join(f"k{number} = 1\n" for number in range(800)),
    "a = " + "9" * 8_000, "a = 0." + "9" * 8_000, "a = 1e" + "9" * 8_000, "seed = 1" + "_1" * 4_000, 'a = """' + '"' * 8_000, "\0" * 8_000,
    "a = 2026-01-31T00:00:00." + "1" * 8_000, "a = '" + "\\u" * 4_000, "#" * 8_000, "\n" * 8_000, "[[faults]]\nfault = 'latency; " + "seconds=1; " * 700 + "'",
])  # fmt: skip
def test_no_file_takes_long_to_read(text: str) -> None:
    """As large as one may be, and of the shapes that readers of TOML are slow at."""
    started = time.process_time()
    with pytest.raises(InvalidRequest):
        read_scenario(text[:FILE_LENGTH_MAX])
    assert time.process_time() - started < CPU_SECONDS_MAX


toml_values = st.recursive(
    st.sampled_from(["1", "-1", "0x1f", "1e9", "0.5", "inf", "nan", "true", "2026-01-31", "12:00:00", "'x'", '"\\u0000"', "'reset'", "'latency; seconds=1-2'"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
    | st.tuples(st.sampled_from(["fault", "x", "times"]), inner).map(lambda pair: f"{{{pair[0]} = {pair[1]}}}"),
    max_leaves=5,
)  # fmt: skip
toml_lines = st.one_of(
    st.tuples(
        st.sampled_from(["name", "teaches", "seed", "fault", "times", "every", "probability", "event", "operation", "faults", "x"]),
        toml_values,
    ).map(" = ".join),
    st.sampled_from(["[[faults]]", "[faults]", "[[x.y]]", "name = 'mine'", "teaches = 'x'", "fault = 'reset'"]),
)  # fmt: skip


@given(
    st.lists(toml_lines, max_size=10).map("\n".join) | st.text() | st.binary().map(lambda raw: raw.decode("latin-1"))
)
def test_any_file_of_a_request_is_read_or_refused(text: str) -> None:
    try:
        scenario = read_scenario(decode_body(msgspec.json.encode({"file": text}), RunScenario).text)
    except InvalidRequest as error:
        assert error.details
        assert all(fault.field and fault.message for fault in error.details)
    else:
        assert isinstance(scenario, Scenario)


@given(
    st.dictionaries(
        st.sampled_from(["name", "file", "seed", "x"]), st.none() | st.integers() | st.text() | st.lists(st.text())
    )
)
def test_any_run_of_a_scenario_is_read_or_every_fault_is_named(body: dict[str, Any]) -> None:
    try:
        request = decode_body(msgspec.json.encode(body), RunScenario)
    except ApiError as error:
        assert error.code in {"invalid_request", "malformed_json"}
        assert {fault.field for fault in error.details} <= {*body, "name"}
    else:
        assert isinstance(request.text, str)
