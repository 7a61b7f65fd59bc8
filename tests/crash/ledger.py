"""What clients asked, and what they were told."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Asked:
    """`amount` is what it moves, in minor units. `payment_id` is empty for a payment that is to be created."""

    tenant_id: str
    key: str
    action: str
    amount: int
    payment_id: str = ""
    outcome: str | None = None


@dataclass(frozen=True)
class Told:
    """One answer to that."""

    asked: Asked
    payment_id: str
    status: str
    body: bytes


@dataclass
class Ledger:
    """Of all clients. Adding to a list or a dict is safe from several threads."""

    told: list[Told] = field(default_factory=list)
    asked: dict[str, Asked] = field(default_factory=dict)
    """By its key, which no two clients share."""
    made: list[tuple[str, str]] = field(default_factory=list)
    """A table, and the id of what is in it: of things that need no key."""
    unanswered: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
