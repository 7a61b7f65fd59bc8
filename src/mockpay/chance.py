"""Choices left to chance that can be made again: each comes from a seed and the name of what is chosen. Pure."""

import hashlib
import random
import secrets
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final

import msgspec

from mockpay.types import exact_decimal

SEED_MAX: Final = 2**53 - 1
"""Every JSON reader keeps whole numbers up to here."""

DECIMALS_MAX: Final = 20
"""More than any draw can tell apart."""

Seed = Annotated[int, msgspec.Meta(ge=0, le=SEED_MAX)]


class Probability(Decimal):
    """From 0 to 1."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {"type": "number", "minimum": 0, "maximum": 1}

    @classmethod
    def parse(cls, raw: object) -> "Probability":
        if isinstance(raw, str) or not 0 <= (value := exact_decimal(raw)) <= 1:
            raise ValueError("must be a number from 0 to 1")
        if int(value.as_tuple().exponent) < -DECIMALS_MAX:
            raise ValueError(f"must have at most {DECIMALS_MAX} decimals")
        return cls(value)


def new_seed() -> int:
    """For a client that gave none."""
    return secrets.randbelow(SEED_MAX + 1)


def chance(seed: int, of: str) -> random.Random:
    """The same numbers for the same seed and name, in every process and whatever was drawn before."""
    digest = hashlib.sha256(f"{seed} {of}".encode()).digest()
    return random.Random(digest)  # noqa: S311 - nothing to guess: the seed is given out
