"""What makes two requests the same, now and in the version before."""

from typing import Any, ClassVar

import msgspec
import pytest

from mockpay.idempotency.model import (
    FINGERPRINT_VERSION,
    Answer,
    Stored,
    fingerprint_of,
    first_fingerprint,
    keyed_request,
)
from mockpay.payments.requests import CreatePayment, RefundPayment, SimulatePayment
from mockpay.web.body import decode_body

WHOLE = (
    b'{"amount":"5.0","currency":"eur","webhook_url":"http://127.0.0.1:9/x","description":"d",'
    b'"metadata":{"b":1,"a":[1.50]},"payment_method":"pm_x","outcome":{"status":"failed","after_seconds":[1,2],"seed":7}}'
)
# As the version before made the first, and as this one makes the second. What is stored depends on them.
MADE: list[tuple[str, Any, bytes, str]] = [
    ("create", CreatePayment, b'{"amount":49.99,"currency":"USD"}',
     "3c51b6a41d18b6fffb0bba1885895d897ea19e232e0248d26f571077c3126ff2"),
    ("create", CreatePayment, WHOLE, "30a71b12a7afa6a95898c0416dddac860ce43f227cb0a8b540e4bf4b74e99787"),
    ("simulate 1", SimulatePayment, b'{"status":"failed"}',
     "932de0989976dea4c9040c9108c2f780eb83f4e847a95017a4729551c6caf40b"),
    ("simulate 1", SimulatePayment, b'{"status":"failed","failure_code":"lost_card"}',
     "1940a350695fdc06c4a29b62970ded81f652ddc923ff8519539e8fcd970cc8f0"),
    ("refund 1", RefundPayment, b'{"refund_amount":5}',
     "5ff1ff25601edde812930901cb79f8d5f0c359c90fec4b97e584106c4fadd500"),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "model", "body", "first"), MADE)
def test_the_version_before_made_these(operation: str, model: Any, body: bytes, first: str) -> None:
    request = decode_body(body, model)
    assert first_fingerprint(operation, request).hex() == first
    stored = Stored(bytes.fromhex(first), 1, 201, b"x")
    assert stored.answer_to(keyed_request("k", operation, request)) == Answer(201, b"x", replayed=True)
    assert not isinstance(stored.answer_to(keyed_request("k", "another", request)), Answer)


def test_this_version_makes_these() -> None:
    """If one of them changes, what is stored under it would be refused: that takes a new version."""
    made = [fingerprint_of(operation, decode_body(body, model)).hex()[:16] for operation, model, body, _ in MADE]
    assert (FINGERPRINT_VERSION, made) == (2, [
        "01e9f3b145b1bb6e", "30a71b12a7afa6a9", "932de0989976dea4", "1940a350695fdc06", "6224a2cccf814bcb",
    ])  # fmt: skip


class Inner(msgspec.Struct, frozen=True):
    depth: int = 1

    FIRST_FIELDS: ClassVar = frozenset({"depth"})


class InnerAfter(Inner, frozen=True):
    width: int = 2


class Before(msgspec.Struct, frozen=True):
    amount: int
    note: str | None = None
    inner: Inner = Inner(3)

    FIRST_FIELDS: ClassVar = frozenset({"amount", "note", "inner"})


class After(Before, frozen=True):
    inner: Inner = InnerAfter(3)
    colour: str | None = None
    size: int | msgspec.UnsetType = msgspec.UNSET


@pytest.mark.parametrize("fields", [{}, {"note": "n"}])
def test_a_field_that_is_added_makes_no_old_request_another_one(fields: dict[str, Any]) -> None:
    before, after = Before(5, **fields), After(5, **fields)
    assert fingerprint_of("x", before) == fingerprint_of("x", after)
    assert first_fingerprint("x", before) == first_fingerprint("x", after)
    wider = Before(5, inner=Inner(4)), After(5, inner=InnerAfter(4))
    assert len({fingerprint_of("x", each) for each in wider}) == 1
    assert len({first_fingerprint("x", each) for each in wider}) == 1
    for given in (After(5, colour="red", **fields), After(5, size=1, **fields)):
        assert fingerprint_of("x", given) != fingerprint_of("x", after)
