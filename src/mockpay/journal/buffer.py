"""Requests on their way to their table: written together, so that keeping them costs next to nothing.

What is lost when a process is killed is what was answered in the last moment. Payments don't depend on it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from mockpay.errors import DatabaseUnavailable
from mockpay.journal import store
from mockpay.journal.model import RequestEntry
from mockpay.postgres.pool import Database

PAUSE_SECONDS: Final = 0.05
ENTRIES_MAX: Final = 10_000
"""As many wait at most, while the database is away. Then the oldest are given up."""
WRITTEN_AT_ONCE: Final = 1000

log = structlog.stdlib.get_logger("mockpay.journal")


class Journal:
    def __init__(self) -> None:
        self._entries: deque[Callable[[], RequestEntry]] = deque(maxlen=ENTRIES_MAX)
        self._writing = asyncio.Lock()

    def add(self, entry: Callable[[], RequestEntry]) -> None:
        """`entry` makes it when it is written, and the same if that is done again."""
        self._entries.append(entry)

    async def write(self, database: Database) -> None:
        """When this returns, all that was added before is in the table. Raises DatabaseUnavailable."""
        async with self._writing:
            while self._entries:
                entries = [self._entries.popleft() for _ in range(min(WRITTEN_AT_ONCE, len(self._entries)))]
                try:
                    await store.write(database, [entry() for entry in entries])
                except (DatabaseUnavailable, asyncio.CancelledError):
                    self._put_back(entries)  # perhaps it is there already: it is not written twice
                    raise

    def _put_back(self, entries: list[Callable[[], RequestEntry]]) -> None:
        """As many of the newest as there is room for, before those that came meanwhile."""
        room = ENTRIES_MAX - len(self._entries)
        self._entries.extendleft(reversed(entries[-room:] if room else []))

    async def keep_writing(self, database: Database) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self.write(database)
            except DatabaseUnavailable:
                await asyncio.sleep(1.0)
            except Exception:
                log.exception("can't write requests for the timeline")
