"""What a tenant may ask of faults: the body, and its rules. Pure."""

from typing import Annotated, Any, ClassVar

import msgspec

from mockpay.chance import Probability, Seed
from mockpay.errors import Fault, InvalidRequest
from mockpay.faults.model import Effect, parse
from mockpay.faults.rules import Operation

Number = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class FaultText(str):
    """A fault, spelled as in the header X-MockPay-Fault."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {
        "type": "string",
        "pattern": rf"^({'|'.join(Effect)})(; ?[a-z]+=[A-Za-z0-9_.]+)*$",
        "examples": ["lost_response; as=timeout"],
    }

    @classmethod
    def parse(cls, raw: object) -> "FaultText":
        if not isinstance(raw, str):
            raise ValueError("must be a string such as 'error; status=503'")
        try:
            parse(raw)
        except InvalidRequest as error:
            raise ValueError(error.details[0].message) from error
        return cls(raw)


class CreateFault(msgspec.Struct, frozen=True):
    """The body of POST /api/faults. Without times, every or probability the rule always fires."""

    fault: FaultText
    operation: Operation | None = None
    times: Number | None = None
    every: Number | None = None
    probability: Probability | None = None
    seed: Seed | None = None

    def __post_init__(self) -> None:
        modes = {"times": self.times, "every": self.every, "probability": self.probability}
        given = [name for name, value in modes.items() if value is not None]
        if len(given) > 1:
            raise InvalidRequest([Fault(name, "is one of three: give times, every or probability") for name in given])
