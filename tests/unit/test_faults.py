"""How the header is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockpay.errors import InvalidRequest
from mockpay.faults.model import HEADER, Effect, Injection, LostAs, parse


@pytest.mark.parametrize(("header", "injection"), [
    ("reset", Injection(effect=Effect.RESET)), (" latency ; seconds = 1.5 ", Injection(effect=Effect.LATENCY, seconds=1.5)),
    ("error; status=503; code=busy", Injection(effect=Effect.ERROR, status=503, code="busy")),
    ("lost_response", Injection(effect=Effect.LOST_RESPONSE, lost_as=LostAs.RESET)),
    ("lost_response;as=error;status=502", Injection(effect=Effect.LOST_RESPONSE, lost_as=LostAs.ERROR, status=502)),
])  # fmt: skip
def test_what_is_asked_for(header: str, injection: Injection) -> None:
    assert parse(header) == injection


@pytest.mark.parametrize("header", [
    "", "explode", "reset; status=500", "latency; seconds=301", "latency; seconds=-1", "latency; seconds=1e3",
    "latency; seconds", "error; status=200", "error; status=5000", "error; code=No", "lost_response; as=smoke",
    "error; status=503, code=busy", "reset;",
])  # fmt: skip
def test_what_is_no_fault(header: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(header)
    [fault] = raised.value.details
    assert fault.field == HEADER
    assert fault.message


@given(st.text())
def test_any_text_is_read_or_refused(header: str) -> None:
    try:
        parse(header)
    except InvalidRequest as error:
        assert len(error.details) == 1
