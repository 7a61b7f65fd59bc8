"""A scenario, and how its file is read. Pure."""

import re
import tomllib
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, ClassVar, Final

import msgspec

from mockpay.chance import SEED_MAX, Seed, chance
from mockpay.errors import Fault, InvalidRequest
from mockpay.faults.requests import CreateFault
from mockpay.web.body import read_object

FAULTS_MAX: Final = 20
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,49}")


class ScenarioName(str):
    """What it is run by."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": f"^{_NAME.pattern}$"}

    @classmethod
    def parse(cls, raw: object) -> "ScenarioName":
        if not isinstance(raw, str) or not _NAME.fullmatch(raw):
            raise ValueError("must be lower_snake_case, 50 characters at most")
        return cls(raw)


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """`faults` are bodies of POST /api/faults, in the order in which they are asked. `seed` is for all of them."""

    name: ScenarioName
    teaches: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    faults: list[CreateFault]
    seed: Seed | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.faults) <= FAULTS_MAX:
            raise InvalidRequest([Fault("faults", f"must be from 1 to {FAULTS_MAX}")])

    def seeded(self, seed: int) -> list[CreateFault]:
        """Its faults, each with a seed: its own, or one that follows from that of the run and its place."""
        return [
            fault
            if fault.seed is not None
            else msgspec.structs.replace(fault, seed=chance(seed, f"fault {number}").randint(0, SEED_MAX))
            for number, fault in enumerate(self.faults, 1)
        ]


def read_scenario(text: str) -> Scenario:
    """Of a file. Raises InvalidRequest, which names the fields as the file spells them."""
    try:
        return read_object(tomllib.loads(text, parse_float=Decimal), Scenario)
    except RecursionError as error:
        raise InvalidRequest([Fault("file", "is nested too deeply")]) from error
    except (InvalidOperation, ValueError) as error:
        raise InvalidRequest([Fault("file", f"is not TOML: {error}")]) from error
