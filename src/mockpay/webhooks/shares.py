"""Who gets the slots that are free, and whose turn it is: each tenant has a share, and each receiver host. Pure."""

import heapq
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from mockpay.cursor import FIRST_ID

TENANTS_REMEMBERED: Final = 1000
"""Of more tenants a worker forgets whose turn was the longest ago."""


T = TypeVar("T")


class UnderWay(NamedTuple):
    """What a worker needs to know of a webhook that it is sending."""

    tenant_id: UUID
    receiver_host: str


class Due(NamedTuple):
    """A delivery that can be claimed."""

    tenant_id: UUID
    id: UUID
    receiver_host: str
    next_attempt_at: datetime


class Limits(NamedTuple):
    """How many webhooks a worker may have under way: in all, of one tenant, and to one receiver host."""

    total: int
    per_tenant: int
    per_host: int


class Load:
    """What is under way, and how much more may be."""

    def __init__(self, under_way: Collection[UnderWay], limits: Limits) -> None:
        self._limits = limits
        self._of_tenant = Counter(each.tenant_id for each in under_way)
        self._of_host = Counter(each.receiver_host for each in under_way)
        self.free = max(0, limits.total - len(under_way))

    def add(self, each: Due) -> None:
        self._of_tenant[each.tenant_id] += 1
        self._of_host[each.receiver_host] += 1
        self.free -= 1

    @property
    def room_of_any(self) -> int:
        """The most that one tenant can be given now."""
        return min(self.free, self._limits.per_tenant)

    def of_tenant(self, tenant_id: UUID) -> int:
        return self._of_tenant[tenant_id]

    def room_of_tenant(self, tenant_id: UUID) -> int:
        return max(0, min(self.free, self._limits.per_tenant - self._of_tenant[tenant_id]))

    def room_of_host(self, receiver_host: str) -> int:
        return max(0, self._limits.per_host - self._of_host[receiver_host])

    def full_tenants(self) -> list[UUID]:
        return [tenant_id for tenant_id, count in self._of_tenant.items() if count >= self._limits.per_tenant]

    def full_hosts(self) -> list[str]:
        return [host for host, count in self._of_host.items() if count >= self._limits.per_host]


class Round:
    """A worker's way through all that is due, which takes as many claims as it takes.

    Each claim begins where the one before ended, with tenants and with the hosts of those whose hosts are full. So each
    has its turn, however many there are.
    """

    def __init__(self) -> None:
        self._tenant = FIRST_ID
        self._hosts: OrderedDict[UUID, str] = OrderedDict()
        self._turns: OrderedDict[UUID, int] = OrderedDict()
        self._turns_taken = 0
        self._found_something = False
        self._left_hosts_out = False

    @property
    def tenant(self) -> UUID:
        """After which the next claim begins."""
        return self._tenant

    def host_of(self, tenant_id: UUID) -> str:
        """After which the next look at this tenant's hosts begins."""
        return self._hosts.get(tenant_id, "")

    def reached_tenant(self, tenant_id: UUID, *, is_end: bool) -> None:
        self._tenant = FIRST_ID if is_end else tenant_id

    def reached_host(self, tenant_id: UUID, receiver_host: str, *, is_end: bool) -> None:
        self._hosts.pop(tenant_id, None)
        if is_end:
            return
        self._left_hosts_out = True
        _remember(self._hosts, tenant_id, receiver_host)

    def last_turn_of(self, tenant_id: UUID) -> int:
        """A number that is higher the later it was; 0 if there was none."""
        return self._turns.get(tenant_id, 0)

    def ends(self, served: Sequence[UUID]) -> bool:
        """Notes whom a claim has served. True if a round ends with it that left nothing out, and found nothing."""
        for tenant_id in served:
            self._turns_taken += 1
            _remember(self._turns, tenant_id, self._turns_taken)
        self._found_something |= bool(served)
        if self._tenant != FIRST_ID:
            return False
        is_idle = not (self._found_something or self._left_hosts_out)
        self._found_something = self._left_hosts_out = False
        return is_idle


def _remember(of_tenants: OrderedDict[UUID, T], tenant_id: UUID, value: T) -> None:
    of_tenants[tenant_id] = value
    of_tenants.move_to_end(tenant_id)
    if len(of_tenants) > TENANTS_REMEMBERED:
        of_tenants.popitem(last=False)


def is_hindered(due: Sequence[Due], load: Load) -> bool:
    """Whether full hosts keep a tenant, a part of whose deliveries `due` is, from as many as there is room for."""
    refused = taken = 0
    for host, count in Counter(each.receiver_host for each in due).items():
        room = min(count, load.room_of_host(host))
        taken += room
        refused += count - room
    return refused > 0 and taken < load.room_of_tenant(due[0].tenant_id)


def choose(due: Iterable[Due], load: Load, round_: Round) -> list[Due]:
    """Gives each free slot to the tenant with the fewest under way; of several, to whose turn was the longest ago.

    Within a tenant it is the order of time, and hosts that are full are passed over. What is chosen is added to `load`.
    """
    queues: defaultdict[UUID, list[Due]] = defaultdict(list)
    for each in sorted(due, key=attrgetter("next_attempt_at")):
        queues[each.tenant_id].append(each)
    turns = [
        (load.of_tenant(tenant_id), round_.last_turn_of(tenant_id), own[0].next_attempt_at, tenant_id, iter(own))
        for tenant_id, own in queues.items()
    ]
    heapq.heapify(turns)
    chosen = []
    while turns and load.free:
        count, last_turn, since, tenant_id, queue = turns[0]
        following = next((each for each in queue if load.room_of_host(each.receiver_host)), None)
        if following is None or not load.room_of_tenant(tenant_id):
            heapq.heappop(turns)
        else:
            load.add(following)
            chosen.append(following)
            heapq.heapreplace(turns, (count + 1, last_turn, since, tenant_id, queue))
    return chosen
