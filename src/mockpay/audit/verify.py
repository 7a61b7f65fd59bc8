"""Recompute every chain of the database, find what was tampered with, and sign or compare where the chains end."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import datetime

import msgspec

from mockpay.audit.chain import Break, breaks
from mockpay.audit.checkpoint import Covered, Summary, Tally, line_of
from mockpay.audit.trail import Key, Trail, joined, trails
from mockpay.errors import StartupError
from mockpay.postgres.pool import Connection


class Report(msgspec.Struct):
    """What a check of the whole database counted. `lost` is what a checkpoint covers and is no longer as it was."""

    payments: int = 0
    entries: int = 0
    broken: int = 0
    lost: int = 0

    @property
    def is_intact(self) -> bool:
        return not (self.broken or self.lost)


async def verify(connection: Connection, tell: Callable[[str], object], covered: Iterable[Covered] = ()) -> Report:
    """Check every chain, and that it goes on from where a checkpoint left it. In a transaction of one snapshot.

    Each fault is told when it is found: in constant memory, however many there are.
    """
    report = Report()
    async for _, before, trail in joined(_covered_by_key(covered), _trails_by_key(connection)):
        if trail:
            report.payments += trail.current is not None
            report.entries += len(trail.entries)
            for broken in _breaks(trail):
                report.broken += 1
                tell(_break_line(broken))
        lost = before and _lost(before, trail)
        if lost:
            report.lost += 1
            tell(lost)
    return report


async def sign(connection: Connection, write: Callable[[bytes], object], key: bytes, now: datetime) -> Summary:
    """Write a checkpoint of the whole database. In a transaction of one snapshot.

    Raises StartupError at the first broken entry. What is written by then has no signature, and proves nothing.
    """
    tally = Tally()
    async for trail in trails(connection):
        if any(_breaks(trail)):
            raise StartupError("The audit trail is broken, so nothing is signed; 'mockpay audit verify' says where.")
        last = trail.entries[-1]
        covered = Covered(trail.tenant_id, trail.payment_id, last.sequence, last.entry_hash)
        line = line_of(covered)
        tally.add(line, covered)
        write(line)
    summary = tally.summary(now, key)
    write(line_of(summary))
    return summary


async def _covered_by_key(covered: Iterable[Covered]) -> AsyncIterator[tuple[Key, Covered]]:
    for each in covered:
        yield (each.tenant_id, each.payment_id), each


async def _trails_by_key(connection: Connection) -> AsyncIterator[tuple[Key, Trail]]:
    async for trail in trails(connection):
        yield (trail.tenant_id, trail.payment_id), trail


def _breaks(trail: Trail) -> Iterator[Break]:
    return breaks(trail.payment_id, trail.entries, trail.current)


def _break_line(broken: Break) -> str:
    where = broken.entry_id or f"number {broken.sequence}"
    return f"payment {broken.payment_id}: entry {where}: {broken.problem}"


def _lost(before: Covered, trail: Trail | None) -> str | None:
    """What is no longer there of what a checkpoint covers. The hash of one entry pins all before it in its chain."""
    if trail is None:
        place = f"payment {before.payment_id} of tenant {before.tenant_id}"
        return f"{place}: missing since the checkpoint, with {before.entries} audit entries"
    until = [entry for entry in trail.entries if entry.sequence <= before.entries]
    if not until or until[-1].sequence < before.entries:
        missing = (until[-1].sequence if until else 0) + 1
        which = f"entry number {missing}" if missing == before.entries else f"entries {missing} to {before.entries}"
        return f"payment {before.payment_id}: {which}: missing since the checkpoint"
    if until[-1].entry_hash != before.entry_hash:
        return (
            f"payment {before.payment_id}: entry {until[-1].content.id}: rewritten since the checkpoint, with its hash"
        )
    return None
