from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mockpay.audit.chain import EMPTY, GENESIS, Content, Current, Entry, Head, breaks, first_break, hash_of, link
from mockpay.audit.facts import changed_facts
from tests.support.fakes import START

PAYMENT = UUID(int=9)


def chain(length: int) -> list[Entry]:
    entries: list[Entry] = []
    head = EMPTY
    for number in range(length):
        content = Content(
            id=UUID(int=100 + number), tenant_id=UUID(int=1), payment_id=PAYMENT, new_status=f"s{number + 1}",
            old_status=f"s{number}" if number else None, triggered_by="create_api", metadata={"n": str(number), "ü": True},
            created_at=START + timedelta(seconds=number),
        )  # fmt: skip
        entries.append(link(content, head))
        head = Head(entries[-1].sequence, entries[-1].entry_hash)
    return entries


def current(length: int) -> Current:
    """Of the payment with that chain."""
    return Current(f"s{length}", chain(length)[-1].content.metadata)


def test_the_first_entry_names_the_genesis() -> None:
    first = chain(1)[0]
    assert (first.sequence, first.prev_hash) == (1, GENESIS)


def test_the_canonical_form_never_changes() -> None:
    """A hash that was written must be found again by every later version."""
    assert chain(2)[1].entry_hash == "23245f2e6471d6eb51d697dc85da9f1dabe42f7e1e8bcfbabc06d6bbf00b981b"


@given(st.integers(1, 8))
def test_an_untouched_chain_is_intact(length: int) -> None:
    assert first_break(PAYMENT, chain(length), current(length)) is None


@given(st.integers(1, 6), st.data())
def test_any_edit_of_any_entry_is_located(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    place = data.draw(st.integers(0, length - 1))
    edits: dict[str, Any] = {
        "id": UUID(int=7), "old_status": "x", "new_status": "x", "triggered_by": "admin", "metadata": {},
        "created_at": START - timedelta(microseconds=1), "tenant_id": UUID(int=7), "payment_id": UUID(int=7),
    }  # fmt: skip
    field = data.draw(st.sampled_from(sorted(edits)))
    content = msgspec.structs.replace(entries[place].content, **{field: edits[field]})
    entries[place] = msgspec.structs.replace(entries[place], content=content)
    broken = first_break(PAYMENT, entries, current(length))
    assert broken is not None
    assert broken.sequence == place + 1


@given(st.integers(2, 6), st.data())
def test_an_edit_with_its_hash_recomputed_shows_in_the_next_entry(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    place = data.draw(st.integers(0, length - 2))
    content = msgspec.structs.replace(entries[place].content, metadata={"n": "forged"})
    forged = hash_of(content, place + 1, entries[place].prev_hash)
    entries[place] = msgspec.structs.replace(entries[place], content=content, entry_hash=forged)
    broken = first_break(PAYMENT, entries, current(length))
    assert broken is not None
    assert (broken.sequence, broken.problem) == (place + 2, "its prev_hash is not the hash of the entry before it")


@given(st.integers(1, 6), st.data())
def test_a_missing_entry_is_missed(length: int, data: st.DataObject) -> None:
    entries = chain(length)
    del entries[data.draw(st.integers(0, length - 1))]
    assert first_break(PAYMENT, entries, current(length)) is not None


def edited(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, content=msgspec.structs.replace(entry.content, metadata={"n": "edited"}))


@given(st.integers(1, 6), st.data())
def test_every_edited_entry_is_named_and_no_other(length: int, data: st.DataObject) -> None:
    places = data.draw(st.sets(st.integers(0, length - 1)))
    entries = [edited(entry) if place in places else entry for place, entry in enumerate(chain(length))]
    found = list(breaks(PAYMENT, entries, current(length)))
    assert [each.entry_id for each in found] == [entries[place].content.id for place in sorted(places)]


def test_after_a_broken_entry_the_others_are_judged_by_their_content() -> None:
    entries = chain(3)
    entries[1] = msgspec.structs.replace(entries[1], entry_hash="a" * 64)
    assert [each.sequence for each in breaks(PAYMENT, entries, current(3))] == [2]
    assert [each.sequence for each in breaks(PAYMENT, [entries[0], entries[2]], current(3))] == [3]


def test_entries_of_a_payment_that_is_gone() -> None:
    [found] = breaks(PAYMENT, chain(2), None)
    assert found.problem == "the payment itself is missing"


def test_a_payment_that_is_no_longer_what_its_last_entry_says() -> None:
    entries = chain(2)
    facts: dict[str, Any] = {"n": "another", "ü": True, "amount": "x"}
    [found] = breaks(PAYMENT, entries, Current("s2", facts))
    assert (found.entry_id, found.sequence) == (entries[1].content.id, 2)
    assert found.problem == "the payment has another n than it says"
    [found] = breaks(PAYMENT, entries, Current("s2", {}))
    assert found.problem == "the payment has another n and ü than it says"


def test_amounts_of_a_currency_that_was_withdrawn_since_are_not_judged() -> None:
    told = {"amount": "5", "currency": "BGN", "refund_amount": "1", "refund_reason": "torn"}
    facts = {"currency": "BGN", "refund_reason": "torn"}
    assert changed_facts(told, facts) == []
    assert changed_facts(told, facts | {"currency": "BGX"}) == ["currency"]
    assert changed_facts(told, facts | {"amount": "5"}) == ["refund_amount"]
    assert changed_facts(told, {"currency": "BGN"}) == ["refund_reason"]
