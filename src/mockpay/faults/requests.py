"""What a tenant may ask of faults: the body, and its rules. Pure."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final

import msgspec

from mockpay.chance import Probability, Seed
from mockpay.errors import Fault, InvalidRequest
from mockpay.events import Event
from mockpay.faults.model import Effect, read_injection
from mockpay.faults.rules import Operation, Target
from mockpay.webhooks.tampering import Tampering
from mockpay.webhooks.tampering import parse as parse_webhook_fault

Number = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


FAULT_LENGTH_MAX: Final = 200


class FaultText(str):
    """A fault of requests, spelled as in the header X-MockPay-Fault, or in the same way one of webhooks."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {
        "type": "string",
        "pattern": rf"^({'|'.join([*Effect, *Tampering])})(; ?[a-z0-9]+=[A-Za-z0-9_.-]+)*$",
        "max_length": FAULT_LENGTH_MAX,
        "examples": ["lost_response; as=timeout"],
    }

    @classmethod
    def parse(cls, raw: object) -> "FaultText":
        if not isinstance(raw, str) or len(raw) > FAULT_LENGTH_MAX:
            raise ValueError(f"must be a string such as 'error; status=503', of {FAULT_LENGTH_MAX} characters at most")
        name = raw.partition(";")[0].strip()
        if name not in [*Effect, *Tampering]:
            raise ValueError(f"must begin with one of {', '.join([*Effect, *Tampering])}")
        if name in list(Tampering):
            parse_webhook_fault(raw)
        else:
            read_injection(raw)
        return cls(raw)

    @property
    def target(self) -> Target:
        return Target.WEBHOOK if self.partition(";")[0].strip() in list(Tampering) else Target.REQUEST


class CreateFault(msgspec.Struct, frozen=True):
    """The body of POST /api/faults. Without times, every or probability the rule always fires.

    `operation` is for faults of requests, `event` for those of webhooks.
    """

    fault: FaultText
    operation: Operation | None = None
    event: Event | None = None
    times: Number | None = None
    every: Number | None = None
    probability: Probability | None = None
    seed: Seed | None = None

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise InvalidRequest(faults)

    def _faults(self) -> Iterator[Fault]:
        modes = {"times": self.times, "every": self.every, "probability": self.probability}
        given = [name for name, value in modes.items() if value is not None]
        if len(given) > 1:
            yield from (Fault(name, "is one of three: give times, every or probability") for name in given)
        if self.operation and self.fault.target is not Target.REQUEST:
            yield Fault("operation", "is for faults of requests; webhooks have an event")
        if self.event and self.fault.target is not Target.WEBHOOK:
            yield Fault("event", "is for faults of webhooks; requests have an operation")
