"""How faults of webhooks are spelled, and what they make of a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockpay.webhooks.delivery import acting_fault, prepare
from mockpay.webhooks.store import Claim
from mockpay.webhooks.tampering import Sending, Tampering, WebhookFault, parse, tampered
from tests.support.fakes import START
from tests.unit.test_webhooks import SECRET, claim

SPELLED = {
    Tampering.DUPLICATE: "duplicate; copies=4", Tampering.DELAY: "delay; seconds=1.5", Tampering.REORDER: "reorder; seconds=5",
    Tampering.DROP: "drop; attempts=3", Tampering.BAD_SIGNATURE: "bad_signature; attempts=2", Tampering.OLD_SECRET: "old_secret",
    Tampering.STALE_TIMESTAMP: "stale_timestamp; seconds=600; attempts=2", Tampering.TRUNCATED_BODY: "truncated_body",
    Tampering.MUTATED_BODY: "mutated_body", Tampering.WRONG_CONTENT_TYPE: "wrong_content_type",
    Tampering.SLOW_BODY: "slow_body; seconds=3",
}  # fmt: skip


@pytest.mark.parametrize("kind", Tampering)
def test_what_is_kept_reads_as_what_was_asked_for(kind: Tampering) -> None:
    fault = parse(SPELLED[kind])
    assert fault.kind is kind
    assert str(fault) == SPELLED[kind]
    assert parse(str(parse(kind.value))) == parse(kind.value)


@pytest.mark.parametrize("text", [
    "", "forge", "duplicate; copies=0", "duplicate; copies=21", "duplicate; attempts=2", "drop; attempts=0", "delay; seconds=3601",
    "reorder; median=1; p99=2", "bad_signature; seconds=1", "slow_body; seconds=61", "lost_response",
])  # fmt: skip
def test_what_is_no_fault(text: str) -> None:
    with pytest.raises(ValueError, match=r"takes|must"):
        parse(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert str(error)


@given(st.integers(0, 2**53 - 1))
def test_a_delay_left_to_chance_is_certain_once_it_is_drawn(seed: int) -> None:
    drawn = parse("delay; seconds=1-5").drawn(seed, "1 seconds")
    assert 1 <= drawn.seconds <= 5
    assert parse(str(drawn)) == drawn == parse("delay; seconds=1-5").drawn(seed, "1 seconds")


@given(st.integers(0, 86_400_000), st.integers(0, 86_400_000))
def test_every_time_reads_as_it_is_kept(one: int, other: int) -> None:
    least, most = sorted((one / 1000, other / 1000))
    drawn = parse(f"stale_timestamp; seconds={least:.3f}-{most:.3f}").drawn(5, "x")
    assert parse(str(drawn)) == drawn


@given(st.text(min_size=1, max_size=20))
def test_half_a_body_is_told_as_it_was_sent(text: str) -> None:
    sending = Sending(body=text.encode(), secrets=[SECRET], timestamp_seconds=0)
    half = tampered(sending, parse("truncated_body"), None).body
    assert text.startswith(half.decode())
    assert len(half) <= len(sending.body) // 2


def faulty(text: str, attempt: int = 1, before_replay: int = 0) -> Claim:
    plain = claim(attempt)
    fields = {name: getattr(plain, name) for name in plain.__struct_fields__}
    return Claim(**fields | {"fault": text, "attempts_before_replay": before_replay})


def test_it_spoils_the_first_attempts_and_no_replay() -> None:
    assert acting_fault(faulty("drop; attempts=2", attempt=2)) == WebhookFault(kind=Tampering.DROP, attempts=2)
    assert acting_fault(faulty("drop; attempts=2", attempt=3)) is None
    assert acting_fault(faulty("drop; attempts=9", attempt=4, before_replay=3)) is None
    assert prepare(faulty("drop"), START) == []
    assert len(prepare(faulty("duplicate; copies=5"), START)) == 6


@pytest.mark.parametrize(("body", "mutated"), [
    (b'{"a":"x","amount":49.99,"n":1}', b'{"a":"x","amount":949.99,"n":1}'), (b'{"a":"x"}', b'{"a":"x"} '),
])  # fmt: skip
def test_a_mutated_body_is_json_still(body: bytes, mutated: bytes) -> None:
    sending = Sending(body=body, secrets=[SECRET], timestamp_seconds=1)
    assert tampered(sending, parse("mutated_body"), None).body == mutated
