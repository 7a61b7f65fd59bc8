"""Work that arrives while a commit is under way is written together by the next one.

An idle writer begins at once, so one request alone waits for nobody. Under load the batches grow by themselves: what a
commit costs is then shared by all that came while the one before it was at work.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, Final, Generic, TypeVar

import structlog

from mockpay.errors import ApiError, DatabaseUnavailable

Work = TypeVar("Work")
Outcome = TypeVar("Outcome")
Made = TypeVar("Made")

Write = Callable[[Sequence[Work]], Awaitable[Sequence[Outcome | ApiError]]]
"""All of a batch in one transaction: for each work, in the same order, its outcome or why it was refused."""

PATIENCE_SECONDS: Final = 30.0
"""No work waits for longer, whatever is before it in the queue."""

log = structlog.stdlib.get_logger("mockpay.database")


class GroupCommit(Generic[Work, Outcome]):
    """One batch is under way at a time, of up to `batch_max` works: several would be smaller, and cost more.

    Between two batches it waits up to `linger_seconds` for as many works as the ones before had: who was answered just
    now comes back. It never waits before the first.

    A work that has no outcome after `patience_seconds` is told that the database can't be used. Where a batch waited in
    vain all who wait are told: they would only find it out one after the other.
    """

    def __init__(
        self,
        write: Write[Work, Outcome],
        *,
        batch_max: int,
        linger_seconds: float = 0.0,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._write = write
        self._batch_max = batch_max
        self._linger_seconds = linger_seconds
        self._patience_seconds = patience_seconds
        self._unanswered: list[tuple[float, int, asyncio.Future[Outcome]]] = []
        """A heap: each with the end of its patience. Those that were answered go when they come first."""
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[Work, asyncio.Future[Outcome]]] = deque()
        self._is_writing = False
        self._writer: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._enough: asyncio.Future[None] | None = None
        self._wanted = 0

    async def submit(self, work: Work, deadline: float | None = None) -> Outcome:
        """When this returns the work is durable. Raises what the work was refused with, and DatabaseUnavailable.

        `deadline`, by the loop's clock, is when its patience ends, if that began before. A work whose request is
        cancelled meanwhile is done all the same, if its batch has begun.
        """
        if self._loop is None:  # each time it is asked for is a call to the system
            self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiting.append((work, future))
        self._watch(future, self._loop, deadline or self._loop.time() + self._patience_seconds)
        if self._enough is not None and len(self._waiting) >= self._wanted:
            self._stop_lingering()
        if not self._is_writing:
            self._is_writing = True
            # In no request's context: what is logged here is about all of a batch.
            self._writer = self._loop.create_task(self._drain(), context=Context())
        return await future

    def _watch(self, future: "asyncio.Future[Outcome]", loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        while self._unanswered and self._unanswered[0][2].done():
            heapq.heappop(self._unanswered)
        heapq.heappush(self._unanswered, (deadline, next(self._numbers), future))
        if self._timer is None or deadline < self._timer.when():
            self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._unanswered[0][0], self._lose_patience, loop)

    def _stop_watching(self) -> None:
        """Everything is answered. A timer would keep all that the writing needs for half a minute more."""
        self._unanswered.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lose_patience(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        while self._unanswered:
            deadline, _, future = self._unanswered[0]
            if not future.done() and deadline > loop.time():
                self._set_timer(loop)
                return
            heapq.heappop(self._unanswered)
            if not future.done():
                future.set_exception(_too_late())

    async def _drain(self) -> None:
        usual = 0.0
        try:
            while self._waiting or usual > 1:
                if self._linger_seconds and len(self._waiting) < int(usual):
                    await self._linger(int(usual))
                usual = max(usual * 0.8, min(len(self._waiting), self._batch_max)) if self._waiting else 0.0
                batch = [self._waiting.popleft() for _ in range(min(self._batch_max, len(self._waiting)))]
                await self._write_together([each for each in batch if not each[1].done()])
        finally:
            # In the same step as the last look, or a work that came in between would find nobody.
            self._is_writing = False
            self._stop_watching()

    async def _linger(self, wanted: int) -> None:
        assert self._loop is not None
        self._wanted, self._enough = wanted, self._loop.create_future()
        timer = self._loop.call_later(self._linger_seconds, self._stop_lingering)
        try:
            await self._enough
        finally:
            timer.cancel()
            self._enough = None

    def _stop_lingering(self) -> None:
        if self._enough is not None and not self._enough.done():
            self._enough.set_result(None)

    async def _write_together(self, batch: list[tuple[Work, asyncio.Future[Outcome]]]) -> bool:
        """Returns False where the database can't be used, so that nothing more need be tried of the same batch."""
        if not batch:
            return True
        try:
            outcomes = await self._write([work for work, _ in batch])
        except DatabaseUnavailable as error:  # no reason to think that one by one would do better
            if isinstance(error.__cause__, TimeoutError):
                batch = [*batch, *self._waiting]
                self._waiting.clear()
            _settle(batch, [error] * len(batch))
            return False
        except Exception as error:
            if len(batch) == 1:
                _settle(batch, [error])
                return True
            log.warning("a batch failed, and is retried one by one", works=len(batch), cause=repr(error))
            return await self._write_one_by_one(batch)
        _settle(batch, outcomes)
        return True

    async def _write_one_by_one(self, batch: list[tuple[Work, asyncio.Future[Outcome]]]) -> bool:
        for place, each in enumerate(batch):
            if each[1].done():  # it was told meanwhile that it waited for too long
                continue
            if not await self._write_together([each]):
                error = DatabaseUnavailable()
                _settle(batch[place + 1 :], [error] * len(batch[place + 1 :]))
                return False
        return True


def end_of_patience() -> float:
    """Returns when a request that begins now has waited for long enough, by the loop's clock."""
    return asyncio.get_running_loop().time() + PATIENCE_SECONDS


@asynccontextmanager
async def patience_until(deadline: float) -> AsyncIterator[None]:
    """Gives up what is inside at that time. Raises DatabaseUnavailable then."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise DatabaseUnavailable from error


def _too_late() -> DatabaseUnavailable:
    error = DatabaseUnavailable()
    error.__cause__ = TimeoutError("it waited for its turn for too long")
    return error


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
        self._of: dict[object, Any] = {}

    def of(self, kind: object, make: Callable[[], Made]) -> Made:
        """Returns what was made for this kind of work: a GroupCommit, or several that belong together."""
        found: Made | None = self._of.get(kind)
        if found is None:
            found = self._of[kind] = make()
        return found
