"""A receiver for tests that block."""

import asyncio
import threading
from collections.abc import Callable

from tests.support.fakes import Received, Receiver, open_receiver
from tests.support.processes import wait_until


class Background:
    """A receiver on a thread and loop of its own."""

    def __init__(self, port: int) -> None:
        self.receiver = Receiver()
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(port),))
        self._thread.start()
        assert self._ready.wait(10)

    async def _run(self, port: int) -> None:
        async with open_receiver(port) as self.receiver:
            self._ready.set()
            await self._done.wait()

    def call(self, act: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(act)

    def wait_for(self, count: int) -> list[Received]:
        wait_until(lambda: len(self.receiver.received) >= count, 30)
        return self.receiver.received

    def close(self) -> None:
        self.call(self._done.set)
        self._thread.join()
        self._loop.close()
