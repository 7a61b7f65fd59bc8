"""Work that arrives while a commit is under way is written together by the next one.

An idle writer begins at once, so one request alone waits for nobody. Under load the batches grow by themselves: what a
commit costs is then shared by all that came while the one before it was at work.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any, Generic, TypeVar

import structlog

from mockpay.errors import ApiError, DatabaseUnavailable

Work = TypeVar("Work")
Outcome = TypeVar("Outcome")

Write = Callable[[Sequence[Work]], Awaitable[Sequence[Outcome | ApiError]]]
"""All of a batch in one transaction: for each work, in the same order, its outcome or why it was refused."""

log = structlog.stdlib.get_logger("mockpay.database")


class GroupCommit(Generic[Work, Outcome]):
    """`writers_max` batches are under way at most, each on a connection of its own, of up to `batch_max` works."""

    def __init__(self, write: Write[Work, Outcome], *, batch_max: int, writers_max: int) -> None:
        self._write = write
        self._batch_max = batch_max
        self._writers_max = writers_max
        self._waiting: deque[tuple[Work, asyncio.Future[Outcome]]] = deque()
        self._writers: set[asyncio.Task[None]] = set()

    async def submit(self, work: Work) -> Outcome:
        """When this returns the work is durable. Raises what the work was refused with, and DatabaseUnavailable.

        A work whose request is cancelled meanwhile is done all the same, if its batch has begun.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if len(self._writers) < self._writers_max:
            # In no request's context: what is logged here is about all of a batch.
            writer = asyncio.create_task(self._drain(), context=Context())
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._batch_max, len(self._waiting)))]
            await self._write_together([each for each in batch if not each[1].done()])

    async def _write_together(self, batch: list[tuple[Work, asyncio.Future[Outcome]]]) -> None:
        if not batch:
            return
        try:
            outcomes = await self._write([work for work, _ in batch])
        except DatabaseUnavailable as error:  # no reason to think that one by one would do better
            _settle(batch, [error] * len(batch))
        except Exception as error:
            if len(batch) == 1:
                _settle(batch, [error])
                return
            log.warning("a batch failed, and is retried one by one", works=len(batch), cause=repr(error))
            for each in batch:
                await self._write_together([each])
        else:
            _settle(batch, outcomes)


def _settle(batch: Sequence[tuple[Any, asyncio.Future[Any]]], outcomes: Sequence[Any]) -> None:
    for (_, future), outcome in zip(batch, outcomes, strict=True):
        if future.done():  # its request was cancelled
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


class GroupCommits:
    """Those of a process, one for each kind of work, made when they are first asked for."""

    def __init__(self) -> None:
        self._of: dict[object, GroupCommit[Any, Any]] = {}

    def of(
        self, kind: object, write: Write[Work, Outcome], *, batch_max: int, writers_max: int
    ) -> GroupCommit[Work, Outcome]:
        found = self._of.get(kind)
        if found is None:
            found = self._of[kind] = GroupCommit(write, batch_max=batch_max, writers_max=writers_max)
        return found
