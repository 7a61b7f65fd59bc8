"""One request as it is kept. Pure."""

from datetime import datetime
from uuid import UUID

import msgspec


class RequestEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`status` is None where no answer was sent. `fault_rule` is None where the header asked for the fault."""

    tenant_id: UUID
    id: UUID
    started_at: datetime
    request_id: str
    method: str
    path: str
    operation: str | None
    payment_id: UUID | None
    idempotency_key: str | None
    status: int | None
    replayed: bool
    duration_milliseconds: int
    fault: str | None
    fault_rule: UUID | None
