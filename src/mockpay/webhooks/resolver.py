"""How names become addresses: as the system resolves them, on threads that are counted, for a tenant at a time.

The system's own function can't be called off. A name whose server never answers holds its thread for as long as the
system is patient, half a minute perhaps, also after whoever asked has given up. So threads have a bound, and each
tenant has a share of them: who asks for such names waits behind its own, and nobody else does.
"""

import asyncio
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS_MAX: Final = 64
LOOKUPS_OF_TENANT_MAX: Final = 8
REMEMBERED_SECONDS: Final = 10.0
HOSTS_REMEMBERED: Final = 1000

LookUp = Callable[..., list[tuple[Any, ...]]]
"""Such as socket.getaddrinfo, which blocks."""

_acting_for: Final[ContextVar[UUID | None]] = ContextVar("acting_for", default=None)
"""The tenant for whom the current task connects somewhere. What is between it and the resolver can't pass it on."""


@contextmanager
def acting_for(tenant_id: UUID) -> Iterator[None]:
    """Lookups of connections that are made inside count as this tenant's."""
    token = _acting_for.set(tenant_id)
    try:
        yield
    finally:
        _acting_for.reset(token)


class _Share:
    """The lookups of one tenant, and how many are under way or wait."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(LOOKUPS_OF_TENANT_MAX)
        self.users = 0


class Lookups:
    """Up to THREADS_MAX at once, LOOKUPS_OF_TENANT_MAX of them for one tenant; whoever asks for more waits.

    A thread lives for one lookup. It is a daemon, so that one that hangs does not keep the program from ending; there
    is nothing to close.
    """

    def __init__(self, look_up: LookUp = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._threads = asyncio.Semaphore(THREADS_MAX)
        self._shares: dict[UUID | None, _Share] = {}

    async def find(
        self, tenant_id: UUID | None, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[Any, ...]]:
        """Returns what socket.getaddrinfo does. Raises OSError or UnicodeError if the name does not resolve.

        Cancelling this gives up waiting. The thread's place stays taken until the thread has ended.
        """
        slot = await self._slot(tenant_id)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[tuple[Any, ...]]] = loop.create_future()

        def finish(found: list[tuple[Any, ...]] | Exception) -> None:
            slot.close()
            if answer.done():  # nobody waits for it any more
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def run() -> None:
            found: list[tuple[Any, ...]] | Exception
            try:
                found = self._look_up(host, port, family=family, type=socket.SOCK_STREAM)
            except Exception as error:
                found = error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, found)

        try:
            threading.Thread(target=run, name=f"resolve {host}", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            slot.close()
            raise OSError(str(error)) from error
        return await answer

    async def addresses(self, tenant_id: UUID | None, host: str, port: int) -> list[str]:
        """Raises OSError or UnicodeError if the name does not resolve."""
        return [str(address[0]) for *_, address in await self.find(tenant_id, host, port)]

    async def _slot(self, tenant_id: UUID | None) -> ExitStack:
        """Waits for a thread's place. Closing gives it back."""
        with ExitStack() as taken:
            share = self._shares.setdefault(tenant_id, _Share())
            share.users += 1
            taken.callback(self._leave, tenant_id, share)
            await share.turns.acquire()
            taken.callback(share.turns.release)
            await self._threads.acquire()
            taken.callback(self._threads.release)
            return taken.pop_all()

    def _leave(self, tenant_id: UUID | None, share: _Share) -> None:
        share.users -= 1
        if not share.users:
            del self._shares[tenant_id]


class ConnectingResolver(AbstractResolver):
    """Resolves for aiohttp, each name for the tenant that the current task is `acting_for`.

    It remembers answers for a moment, as aiohttp would. That one has whoever asks for a name wait for the lookup that
    is under way, and a tenant could have others wait behind its own in that way.
    """

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups
        self._remembered: OrderedDict[tuple[str, int, int], tuple[float, list[ResolveResult]]] = OrderedDict()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError if the name does not resolve."""
        key = (host, port, family)
        until, results = self._remembered.get(key, (0.0, []))
        if time.monotonic() < until:
            return results
        found = await self._lookups.find(_acting_for.get(), host, port, family)
        results = [_result(host, port, each) for each in found]
        self._remembered[key] = time.monotonic() + REMEMBERED_SECONDS, results
        self._remembered.move_to_end(key)
        if len(self._remembered) > HOSTS_REMEMBERED:
            self._remembered.popitem(last=False)
        return results

    async def close(self) -> None:
        """Nothing is open."""


def _result(host: str, port: int, found: tuple[Any, ...]) -> ResolveResult:
    family, _, protocol, _, address = found
    return ResolveResult(
        hostname=host,
        host=str(address[0]),
        port=port,
        family=family,
        proto=protocol,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
