"""The hash chain of a payment's audit trail. Pure: no clock, no database.

Each entry carries the SHA-256 of its own content and of the entry before it. An edit made behind the triggers' back
therefore shows in the row itself, and a removed or inserted row shows in the one after it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from mockpay.audit.facts import changed_facts
from mockpay.exact_json import encode_canonical
from mockpay.types import rfc3339

GENESIS: Final = "0" * 64
"""What the first entry of a chain names as the hash before it."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. `metadata` holds strings, whole numbers and booleans only, which every store keeps exactly."""

    id: UUID
    tenant_id: UUID
    payment_id: UUID
    old_status: str | None
    new_status: str
    triggered_by: str
    metadata: dict[str, Any]
    created_at: datetime


class Head(msgspec.Struct, frozen=True):
    """The end of a chain, to which the next entry is linked."""

    sequence: int
    entry_hash: str


class Entry(msgspec.Struct, frozen=True):
    content: Content
    sequence: int
    prev_hash: str
    entry_hash: str


class Current(msgspec.Struct, frozen=True):
    """What a payment is now, of which its last entry tells."""

    status: str
    facts: dict[str, str]


class Break(msgspec.Struct, frozen=True):
    """Where a chain is broken. `entry_id` is None if what is wrong is that an entry is missing at the end."""

    payment_id: UUID
    entry_id: UUID | None
    sequence: int
    problem: str


EMPTY: Final = Head(0, GENESIS)


def link(content: Content, head: Head) -> Entry:
    """The entry that continues the chain whose end is `head`."""
    sequence = head.sequence + 1
    return Entry(content, sequence, head.entry_hash, hash_of(content, sequence, head.entry_hash))


def hash_of(content: Content, sequence: int, prev_hash: str) -> str:
    """SHA-256 of the canonical form: a JSON array in this order, objects with sorted keys, times in microseconds."""
    canonical = encode_canonical(
        [
            "mockpay-audit-1",
            str(content.tenant_id),
            str(content.payment_id),
            sequence,
            str(content.id),
            content.old_status,
            content.new_status,
            content.triggered_by,
            content.metadata,
            rfc3339(content.created_at),
            prev_hash,
        ]
    )
    return hashlib.sha256(canonical).hexdigest()


def first_break(payment_id: UUID, entries: Sequence[Entry], current: Current) -> Break | None:
    """Check a whole chain, in order, against itself and against what the payment is now."""
    return next(breaks(payment_id, entries, current), None)


def breaks(payment_id: UUID, entries: Sequence[Entry], current: Current | None) -> Iterator[Break]:
    """Every broken entry of a chain, in order. `current` is None where the payment itself is gone.

    What follows a broken entry is judged by its content, and not by its link to something that is wrong anyway. So one
    edit is named once, and a second one further on is named as well.
    """
    head: Head | None = EMPTY
    sequence = 0
    for entry in entries:
        problem = _problem(entry, sequence, head)
        if problem:
            yield Break(payment_id, entry.content.id, entry.sequence, problem)
        sequence = entry.sequence
        head = None if problem else Head(entry.sequence, entry.entry_hash)
    if current is None:
        yield Break(payment_id, None, sequence + 1, "the payment itself is missing")
    elif head is EMPTY or (head and entries[-1].content.new_status != current.status):
        yield Break(payment_id, None, sequence + 1, f"no entry explains the payment's status, {current.status}")
    elif head and (changed := changed_facts(entries[-1].content.metadata, current.facts)):
        problem = f"the payment has another {' and '.join(changed)} than it says"
        yield Break(payment_id, entries[-1].content.id, sequence, problem)


def _problem(entry: Entry, sequence_before: int, head: Head | None) -> str | None:
    """`head` is None where the entry before is broken."""
    if entry.sequence != sequence_before + 1:
        return f"entry {sequence_before + 1} is missing before it"
    if head and entry.prev_hash != head.entry_hash:
        return "its prev_hash is not the hash of the entry before it"
    if entry.entry_hash != hash_of(entry.content, entry.sequence, entry.prev_hash):
        return "its content does not match its entry_hash"
    return None
