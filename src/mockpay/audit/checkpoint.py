"""What a checkpoint is: a line for each payment, and a signed summary of them. Pure: lines in, lines out.

It lists where each chain ended, since one hash over everything can't tell what was removed from what came later. The
root hash is the SHA-256 of all lines before the summary, as they are in the file: `head -n -1 FILE | sha256sum`.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from mockpay.errors import StartupError
from mockpay.exact_json import encode, encode_canonical
from mockpay.types import rfc3339

FORMAT: Final = "mockpay-audit-checkpoint-1"
_SUMMARY_BEGINS: Final = b"{"


class Covered(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A payment's chain as it was: the number of its last entry, and the hash of that, which pins all before it."""

    tenant_id: UUID
    payment_id: UUID
    entries: int
    entry_hash: str


class Summary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    created_at: str
    payments: int
    entries: int
    root_hash: str
    signature: str

    def __str__(self) -> str:
        return f"{self.payments} payments, {self.entries} audit entries, root hash {self.root_hash}"


class Tally:
    """Counts and hashes the lines of a checkpoint as they pass."""

    def __init__(self) -> None:
        self._payments = 0
        self._entries = 0
        self._root = hashlib.sha256()

    def add(self, line: bytes, covered: Covered) -> None:
        self._payments += 1
        self._entries += covered.entries
        self._root.update(line)

    def summary(self, created_at: datetime, key: bytes) -> Summary:
        return _signed(rfc3339(created_at), self._payments, self._entries, self._root.hexdigest(), key)

    def agrees_with(self, summary: Summary) -> bool:
        counted = (self._payments, self._entries, self._root.hexdigest())
        return counted == (summary.payments, summary.entries, summary.root_hash)


def line_of(part: Covered | Summary) -> bytes:
    return encode(part) + b"\n"


def read_summary(lines: Iterable[bytes], key: bytes) -> Summary:
    """Read a whole checkpoint. Raises StartupError if it is not what was written and signed with this key."""
    remaining = iter(lines)
    tally = Tally()
    for line in remaining:
        if line.startswith(_SUMMARY_BEGINS):
            summary = _decoded_summary(line)
            _check(summary, tally, key)
            if next(remaining, None) is not None:
                raise StartupError("The checkpoint was edited: it goes on after its signature.")
            return summary
        tally.add(line, _decoded_line(line))
    raise StartupError("The checkpoint has no signature at its end: it was cut off, or never finished.")


def read_lines(lines: Iterable[bytes], summary: Summary) -> Iterator[Covered]:
    """What a checkpoint covers, after its summary was read: it is read twice, so as not to be kept in memory."""
    tally = Tally()
    for line in lines:
        if line.startswith(_SUMMARY_BEGINS):
            break
        covered = _decoded_line(line)
        tally.add(line, covered)
        yield covered
    if not tally.agrees_with(summary):
        raise StartupError("The checkpoint was changed while it was read; run the command again.")


def _check(summary: Summary, tally: Tally, key: bytes) -> None:
    if summary.format != FORMAT:
        raise StartupError(f"The checkpoint has the format '{summary.format}', and this MockPay knows {FORMAT} only.")
    expected = _signed(summary.created_at, summary.payments, summary.entries, summary.root_hash, key)
    if not hmac.compare_digest(expected.signature.encode(), summary.signature.encode()):
        raise StartupError(
            "The signature of the checkpoint is wrong: this is not its key, or its last line was edited."
        )
    if not tally.agrees_with(summary):
        raise StartupError("The checkpoint was edited: its lines do not match the root hash that was signed.")


def _signed(created_at: str, payments: int, entries: int, root_hash: str, key: bytes) -> Summary:
    """The signature is the HMAC-SHA256 of a JSON array of all the rest, in lower-case hexadecimal."""
    content = encode_canonical([FORMAT, created_at, payments, entries, root_hash])
    return Summary(
        format=FORMAT,
        created_at=created_at,
        payments=payments,
        entries=entries,
        root_hash=root_hash,
        signature=hmac.new(key, content, hashlib.sha256).hexdigest(),
    )


def _decoded_line(line: bytes) -> Covered:
    try:
        return msgspec.json.decode(line, type=Covered)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StartupError("This is no checkpoint, or it was edited: it has a line that is no line of one.") from error


def _decoded_summary(line: bytes) -> Summary:
    try:
        return msgspec.json.decode(line, type=Summary)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StartupError("This is no checkpoint, or it was edited: its last line is no signed summary.") from error
