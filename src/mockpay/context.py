"""Everything a request or a worker needs from outside, passed explicitly: no module-level state, no singletons."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import uuid_utils.compat

from mockpay.chance import new_seed
from mockpay.journal.buffer import Journal
from mockpay.postgres.group_commit import GroupCommits
from mockpay.postgres.pool import Database
from mockpay.settings import Settings
from mockpay.telemetry import Telemetry
from mockpay.types import Clock, NewId, SystemClock
from mockpay.webhooks.address import AddressGuard


def new_secret() -> str:
    """64 hex characters from 32 random bytes: an API key, or a webhook secret."""
    return secrets.token_hex(32)


def new_id() -> UUID:
    """UUIDv7: later ids sort after earlier ones, which keeps the indexes dense."""
    return uuid_utils.compat.uuid7()


@dataclass(frozen=True, kw_only=True)
class Context:
    settings: Settings
    database: Database
    address_guard: AddressGuard
    started_at: datetime
    clock: Clock = field(default_factory=SystemClock)
    telemetry: Telemetry = field(default_factory=Telemetry)
    journal: Journal = field(default_factory=Journal)
    group_commits: GroupCommits = field(default_factory=GroupCommits)
    new_id: NewId = new_id
    new_secret: Callable[[], str] = new_secret
    new_seed: Callable[[], int] = new_seed
    wake_worker: Callable[[], None] = lambda: None
    """Called after a commit that may have queued a webhook: a worker in this process need not wait for its poll."""
