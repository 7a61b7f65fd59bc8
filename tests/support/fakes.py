"""What the tests set in place of the world: the time, and a receiver that does as it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aiohttp import web

START = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


class FakeClock:
    """Stands still until told."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    answered: int
    """The status that it is answered with."""


@dataclass
class Receiver:
    """A real HTTP server. `answers` are the statuses of the next requests; when they are used up it is 200."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    answer_body: bytes = b"thank you"
    answer_headers: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    most_at_once: int = 0
    at_once: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhooks"

    def hold(self) -> None:
        """Answer nobody until `gate.set()`."""
        self.gate.clear()

    async def wait_for(self, count: int, timeout_seconds: float = 15) -> list[Received]:
        """The requests so far, once there are `count`."""
        async with self.arrived:
            await asyncio.wait_for(self.arrived.wait_for(lambda: len(self.received) >= count), timeout_seconds)
        return self.received

    async def handle(self, request: web.Request) -> web.Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            body = await request.read()
            status = self.answers.pop(0) if self.answers else 200
            received = Received(request.path, dict(request.headers), body, status)
            async with self.arrived:
                self.received.append(received)
                self.arrived.notify_all()
            await self.gate.wait()
            return web.Response(status=status, body=self.answer_body, headers=self.answer_headers)
        finally:
            self.at_once -= 1


@asynccontextmanager
async def open_receiver(port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    receiver.gate.set()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        receiver.gate.set()
        await runner.cleanup()
