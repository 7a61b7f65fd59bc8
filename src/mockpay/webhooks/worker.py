"""Claims due deliveries, sends them side by side, writes the results. Any number of these may run anywhere."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import aiohttp
import msgspec
import structlog

from mockpay.chance import chance
from mockpay.errors import DatabaseUnavailable
from mockpay.postgres.group_commit import GroupCommit
from mockpay.postgres.pool import Database
from mockpay.settings import Settings
from mockpay.telemetry import Telemetry
from mockpay.types import Clock
from mockpay.webhooks import claims, store
from mockpay.webhooks.address import AddressGuard
from mockpay.webhooks.delivery import judge, open_session, prepare, send_all
from mockpay.webhooks.resolver import Lookups
from mockpay.webhooks.schedule import Schedule
from mockpay.webhooks.shares import Limits, Round, UnderWay
from mockpay.webhooks.store import Claim, Result

POLL_SECONDS: Final = 0.2
REST_TIMES: Final = 4
"""A claim that found nothing, and has not seen everything yet, is followed by a rest of so many times its own duration.
So a tenant of a hundred thousand hosts can't keep the database busy."""
DATABASE_RETRY_SECONDS: Final = 1.0
SETTLE_RETRY_SECONDS: Final = 0.5
SETTLED_AT_ONCE: Final = 64

log = structlog.stdlib.get_logger("mockpay.webhooks")


class Worker:
    """`run` until `stop`. Stopping drains: what is under way is finished and written, nothing new is claimed."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        guard: AddressGuard,
        clock: Clock,
        telemetry: Telemetry,
        jitter: Callable[[], float] = random.random,
        lookups: Lookups | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._guard = guard
        self._clock = clock
        self._telemetry = telemetry
        self._jitter = jitter
        # Of its own, so that no registration of a URL holds up a webhook.
        self._lookups = lookups or Lookups()
        self._schedule = Schedule.of(settings)
        self._sending: dict[UUID, UnderWay] = {}
        self._round = Round()
        self._limits = Limits(
            total=settings.webhook_concurrency,
            per_tenant=settings.webhook_concurrency_per_tenant,
            per_host=settings.webhook_concurrency_per_host,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._something_to_do = asyncio.Event()
        self._stopping = False
        self._settling: GroupCommit[tuple[Claim, Result, datetime | None], bool] = GroupCommit(
            self._settle_together, batch_max=SETTLED_AT_ONCE
        )

    def wake(self) -> None:
        """Look for work now, not at the next poll."""
        self._something_to_do.set()

    def stop(self) -> None:
        """Ask `run` to end. It returns when what is under way is done."""
        self._stopping = True
        self.wake()

    async def run(self) -> None:
        """Survives the loss of the database: what can't be written now is claimed anew when its lease ends."""
        async with open_session(self._guard, self._lookups, self._schedule.timeout_seconds) as session:
            while not self._stopping:
                self._something_to_do.clear()
                claimed, rest_seconds = await self._claim_calmly()
                for claim in claimed:
                    self._start(session, claim)
                if not claimed:
                    await self._rest(rest_seconds)
            await asyncio.gather(*self._tasks)

    async def run_due(self, now: datetime | None = None) -> int:
        """Deliver what is due now and wait for it; the number of attempts made. For one-shot use and for tests."""
        async with open_session(self._guard, self._lookups, self._schedule.timeout_seconds) as session:
            claimed = (await self._claim(now)).claims
            await asyncio.gather(*(self._deliver(session, claim, now) for claim in claimed))
        return len(claimed)

    async def _claim_calmly(self) -> tuple[list[Claim], float]:
        """Returns what to send, and for how many seconds to rest if that is nothing."""
        if len(self._sending) >= self._settings.webhook_concurrency:
            return [], POLL_SECONDS
        started = time.monotonic()
        try:
            claimed = await self._claim()
        except DatabaseUnavailable as error:
            log.warning("can't claim deliveries", cause=repr(error.__cause__))
            await asyncio.sleep(DATABASE_RETRY_SECONDS)
        except Exception:
            # A worker that ended here would stop every webhook until the next restart.
            log.exception("can't claim deliveries")
            await asyncio.sleep(DATABASE_RETRY_SECONDS)
        else:
            if claimed.is_idle:
                return claimed.claims, POLL_SECONDS
            return claimed.claims, min(POLL_SECONDS, REST_TIMES * (time.monotonic() - started))
        return [], POLL_SECONDS

    async def _claim(self, now: datetime | None = None) -> claims.Claimed:
        async with self._database.connection() as connection:  # each statement is a transaction by itself
            return await claims.claim(
                connection, self._round, sending=self._sending, limits=self._limits, lease=self._schedule.lease, now=now
            )

    def _start(self, session: aiohttp.ClientSession, claim: Claim) -> None:
        self._sending[claim.id] = UnderWay(claim.tenant_id, claim.receiver_host)
        task = asyncio.create_task(self._deliver(session, claim))
        self._tasks.add(task)

        def free_slot(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            del self._sending[claim.id]
            self.wake()

        task.add_done_callback(free_slot)

    async def _deliver(self, session: aiohttp.ClientSession, claim: Claim, now: datetime | None = None) -> None:
        started_at = self._clock.now()
        if not self._settings.faults_are_on:  # also of what was queued while they were on
            claim = msgspec.structs.replace(claim, fault=None)
        try:
            sent = await send_all(session, claim, prepare(claim, started_at))
            result = judge(claim, sent, self._schedule, started_at, self._random_of(claim))
            kept = await self._settle(claim, result, now)
        except Exception:  # its lease ends, and it is claimed anew
            log.exception("can't deliver, or write the result", delivery=str(claim.id))
        else:
            if kept:
                self._telemetry.attempt(result.status)
            _log_result(claim, result, kept=kept)

    def _random_of(self, claim: Claim) -> float:
        """For its jitter: where a fault acted, what comes after it is as repeatable as the fault."""
        if claim.fault_seed is None:
            return self._jitter()
        return chance(claim.fault_seed, f"jitter {claim.attempt}").random()

    async def _settle(self, claim: Claim, result: Result, now: datetime | None) -> bool:
        """Tries until the lease must be over: a result that is lost means a webhook that is sent again for nothing.

        Writing it late, or twice, does no harm: it is fenced. Raises DatabaseUnavailable in the end.
        """
        deadline = time.monotonic() + self._schedule.lease.total_seconds()
        while True:
            try:
                return await self._settling.submit((claim, result, now))
            except DatabaseUnavailable as error:
                log.warning("can't write a delivery's result", delivery=str(claim.id), cause=repr(error.__cause__))
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(SETTLE_RETRY_SECONDS)

    async def _settle_together(self, results: Sequence[tuple[Claim, Result, datetime | None]]) -> list[bool]:
        """Results that come in while others are being written are written next, at once."""
        async with self._database.connection() as connection:
            now = results[0][2]  # all are of one run
            return await store.settle(connection, [(claim, result) for claim, result, _ in results], now)

    async def _rest(self, seconds: float) -> None:
        # Not wait_for: before Python 3.12 it swallows a cancellation that meets what it waits for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._something_to_do.wait()


def _log_result(claim: Claim, result: Result, *, kept: bool) -> None:
    event = f"webhook {result.status}" if kept else "webhook result dropped: the claim was lost"
    log.info(
        event,
        delivery=str(claim.id),
        webhook_event=claim.event,
        attempt=claim.attempt,
        response_status=result.telling.response_status,
        error=result.telling.error,
        **({"fault": result.fault} if result.fault else {}),
    )
