"""How faults are spelled, `name; parameter=value; parameter=value`, and the times that they name. Pure."""

import math
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

import msgspec

Parameters = Mapping[str, Callable[[str], object]]
"""What a fault takes, with what reads each. A reader raises ValueError."""

_PARAMETER: Final = re.compile(r"([a-z0-9]+)\s*=\s*([A-Za-z0-9_.-]+)")
_SECONDS: Final = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})?")
_WHOLE: Final = re.compile(r"[0-9]{1,16}")
_Z99: Final = 2.3263478740408408
"""How many standard deviations above the middle a normal distribution's ninety-ninth percentile is."""


class Between(msgspec.Struct, frozen=True):
    """Seconds, evenly spread from the least to the most."""

    least: float
    most: float

    @property
    def is_fixed(self) -> bool:
        return self.least == self.most

    def draw(self, random: Random) -> float:
        return random.uniform(self.least, self.most)


class LongTailed(msgspec.Struct, frozen=True):
    """Seconds, as latencies are in earnest: half of them below the median, one in a hundred above `p99`."""

    median: float
    p99: float
    longest: float
    is_fixed = False

    def draw(self, random: Random) -> float:
        sigma = math.log(self.p99 / self.median) / _Z99
        return min(random.lognormvariate(math.log(self.median), sigma), self.longest)


Wait = Between | LongTailed


def fixed(seconds: float) -> Between:
    return Between(seconds, seconds)


def read(text: str, faults: Mapping[str, Parameters]) -> tuple[str, dict[str, object]]:
    """The fault's name and what its parameters say. Raises ValueError with a sentence for the client."""
    name, *parameters = (part.strip() for part in text.split(";"))
    if name not in faults:
        raise ValueError(f"must begin with one of {', '.join(faults)}")
    takes = faults[name]
    values: dict[str, object] = {}
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter)
        if not match or match[1] not in takes or match[1] in values:
            listed = f"takes {', '.join(takes)}, each once and as name=value" if takes else "takes no parameters"
            raise ValueError(f"{name} {listed}")
        try:
            values[match[1]] = takes[match[1]](match[2])
        except ValueError as error:
            raise ValueError(f"{match[1]}={match[2]} is none: {match[1]} must be {error}") from error
    return name, values


def spell(name: str, parameters: Mapping[str, object]) -> str:
    """What `read` reads. Parameters that are None are left out."""
    return "; ".join([name, *(f"{key}={value}" for key, value in parameters.items() if value is not None)])


def spell_seconds(seconds: float) -> str:
    """To the millisecond, as it is read; never with an exponent."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def wait_parameters(longest: float) -> Parameters:
    """`seconds=1.5`, `seconds=0.5-4`, or `median=0.2; p99=3`. `take_wait` makes one of them."""

    def seconds(value: str) -> float:
        if not _SECONDS.fullmatch(value) or float(value) > longest:
            raise ValueError(f"seconds from 0 to {spell_seconds(longest)}")
        return float(value)

    def between(value: str) -> Between:
        least, dash, most = value.partition("-")
        wait = Between(seconds(least), seconds(most if dash else least))
        if wait.least > wait.most:
            raise ValueError("seconds, or the least and the most of them")
        return wait

    return {"seconds": between, "median": seconds, "p99": seconds}


def take_wait(values: dict[str, object], longest: float, otherwise: Wait) -> Wait:
    """Out of what `wait_parameters` read; the rest stays. Raises ValueError."""
    match [values.pop(name, None) for name in ("seconds", "median", "p99")]:
        case [None, None, None]:
            return otherwise
        case [Between() as wait, None, None]:
            return wait
        case [None, float() as median, float() as p99] if 0 < median <= p99:
            return LongTailed(median, p99, longest)
        case _:
            raise ValueError(
                "takes a time as seconds, or as median and p99, of which median is above 0 and not the greater"
            )


def whole(least: int, most: int) -> Callable[[str], int]:
    def number(value: str) -> int:
        if not _WHOLE.fullmatch(value) or not least <= int(value) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(value)

    return number


def spelled(pattern: str, described: str) -> Callable[[str], str]:
    """A text of this form. `described` ends the sentence "must be …"."""

    def text(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(described)
        return value

    return text
