"""Remembers what velocity rules counted, so that a tenant's payments need not be counted for each batch. Pure.

A count is of one moment. Later there can be no more than were counted and were created since, which a counter of the
tenant tells: while even that is below the threshold, nobody need count. And where so many payments were found that can
no longer fail, they are too many for as long as the oldest of them is in the window. In between the database counts.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

TENANTS_MAX: Final = 10_000
"""More are not remembered at a time: the one that was counted longest ago goes, and is counted anew."""


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule, in one version of it, counted at one moment.

    `payments` goes no further than the threshold. `creations` is the tenant's counter of that moment. `settled_since`
    is when the oldest of the counted was created, if they reach the threshold and none of them can fail any more.
    """

    rule_id: UUID
    version: str
    threshold: int
    window_secs: int
    at: datetime
    creations: int
    payments: int
    settled_since: datetime | None = None


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A count of before, and the size of the batch that is to be decided now."""

    tenant_id: UUID
    count: Count
    batch: int

    @property
    def creations_max(self) -> int:
        """Up to this value of the counter the whole batch stays below the threshold."""
        return self.count.creations + self.count.threshold - self.count.payments - self.batch

    @property
    def too_many_until(self) -> datetime | None:
        """Before this moment the threshold is reached, whatever happens meanwhile."""
        if self.count.settled_since is None:
            return None
        return self.count.settled_since + timedelta(seconds=self.count.window_secs)

    def recent(self, creations: int) -> int:
        """Returns a number of payments that gives the right verdict, where the database had no need to count."""
        if creations <= self.creations_max:
            return self.count.payments + creations - self.count.creations
        return self.count.threshold


class Memory:
    """What this process knows of tenants' counts. It is a help only: without it everything is counted."""

    def __init__(self, tenants_max: int = TENANTS_MAX) -> None:
        self._tenants_max = tenants_max
        self._counts: OrderedDict[UUID, dict[UUID, Count]] = OrderedDict()

    def known(self, batches: Mapping[UUID, int], now: datetime) -> list[Known]:
        """Returns what is known at `now` of these tenants, given the size of each one's batch.

        A count from later than now is left out: the clock was set back since, and the window with it.
        """
        return [
            Known(tenant_id=tenant_id, count=count, batch=batch)
            for tenant_id, batch in batches.items()
            for count in self._counts.get(tenant_id, {}).values()
            if count.at <= now
        ]

    def keep(self, tenant_id: UUID, counts: Iterable[Count], rule_ids: Iterable[UUID]) -> None:
        """Remembers what was counted just now, and forgets rules that are not among `rule_ids` any more."""
        present = set(rule_ids)
        kept = {rule_id: count for rule_id, count in self._counts.get(tenant_id, {}).items() if rule_id in present}
        self._counts[tenant_id] = kept | {count.rule_id: count for count in counts}
        self._counts.move_to_end(tenant_id)
        while len(self._counts) > self._tenants_max:
            self._counts.popitem(last=False)
