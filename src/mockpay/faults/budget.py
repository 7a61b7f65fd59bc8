"""How much faults may hold at once: a request that waits for hours costs its client nothing, and the server a little.

So it is counted for each tenant, and for the process. What is beyond that is refused before anything is done.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from mockpay.errors import TooManyHeld

TENANT_REQUESTS_MAX: Final = 200
PROCESS_REQUESTS_MAX: Final = 800
MEBIBYTE: Final = 1024 * 1024
TENANT_BODY_BYTES_MAX: Final = 8 * MEBIBYTE
PROCESS_BODY_BYTES_MAX: Final = 32 * MEBIBYTE


@dataclass(slots=True)
class Held:
    """Counts what one tenant, or all of them, have under way: requests that are held, and the bytes of their bodies."""

    requests: int = 0
    body_bytes: int = 0


class HoldBudget:
    """Bounds what faults hold in one process. Half of its `connections_max` are for requests that no fault holds.

    A tenant gets half of what the process has at most, so that there is something left for the others.
    """

    def __init__(self, connections_max: int) -> None:
        self.requests_max = min(PROCESS_REQUESTS_MAX, connections_max // 2)
        self.tenant_requests_max = min(TENANT_REQUESTS_MAX, self.requests_max // 2)
        self._of_all = Held()
        self._of_tenants: defaultdict[UUID, Held] = defaultdict(Held)
        """Only of those that have something under way."""

    @contextmanager
    def hold(self, tenant_id: UUID, body_bytes: int) -> Iterator[None]:
        """Count a request while it is held, with what is kept of its body. Raises TooManyHeld if there is no room."""
        self._refuse_beyond(self._of_tenants.get(tenant_id, Held()), body_bytes)
        own = self._of_tenants[tenant_id]
        for held in (own, self._of_all):
            held.requests += 1
            held.body_bytes += body_bytes
        try:
            yield
        finally:
            for held in (own, self._of_all):
                held.requests -= 1
                held.body_bytes -= body_bytes
            if own.requests == 0:
                del self._of_tenants[tenant_id]

    def _refuse_beyond(self, own: Held, body_bytes: int) -> None:
        for held, whose, requests_max, body_bytes_max in (
            (own, "this tenant's", self.tenant_requests_max, TENANT_BODY_BYTES_MAX),
            (self._of_all, "all tenants'", self.requests_max, PROCESS_BODY_BYTES_MAX),
        ):
            if held.requests >= requests_max:
                raise _too_many(f"Faults hold {held.requests} of {whose} requests already, and no more at once.")
            if held.body_bytes + body_bytes > body_bytes_max:
                limit = body_bytes_max // MEBIBYTE
                raise _too_many(f"The bodies of {whose} requests that faults hold may have {limit} MiB together.")


def _too_many(reason: str) -> TooManyHeld:
    return TooManyHeld(f"{reason} Nothing was done; repeat it when some of them are over.")
