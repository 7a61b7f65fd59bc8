"""Read path and query parameters with the same strictness as bodies."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Any, TypeVar
from uuid import UUID

from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import PathParameter, QueryParameter

from mockpay.errors import Fault, InvalidRequest
from mockpay.types import parse_uuid

LIMIT_MAX = 100
FAULTS_MAX = 20
"""More than these are not listed: the answer must not be many times the request."""


def query(description: str, **schema: Any) -> Any:
    """How the OpenAPI document shows a parameter that a QueryReader reads: the framework only sees optional text."""
    shown = {"type": OpenAPIType.STRING, "one_of": None, **schema}
    return QueryParameter(description=description, schema_extra=shown)


def path_uuid(description: str = "A UUID.") -> Any:
    return PathParameter(description=description, schema_extra={"format": "uuid"})


LimitParameter = Annotated[
    str | None,
    query("How many at most; 10 if left out.", type=OpenAPIType.INTEGER, minimum=1, maximum=LIMIT_MAX),
]
CursorParameter = Annotated[str | None, query("The next_cursor of the page before.", pattern="^[A-Za-z0-9_-]{43}$")]

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)


def path_id(name: str, text: str) -> UUID:
    """Raises InvalidRequest: a malformed id is the client's mistake, not a missing thing."""
    try:
        return parse_uuid(text)
    except ValueError as error:
        raise InvalidRequest([Fault(name, str(error))]) from error


class QueryReader:
    """Collects the faults of all the parameters of a query string; `finish` raises them together."""

    def __init__(self, pairs: Iterable[tuple[str, str]], known: Iterable[str]) -> None:
        self._values: dict[str, str] = {}
        self._faults: list[Fault] = []
        allowed = list(known)
        for name, value in pairs:
            if name not in allowed:
                self._fault(name[:100], f"is not a known parameter; known are {', '.join(allowed)}")
            elif name in self._values:
                self._fault(name, "is given twice")
            else:
                self._values[name] = value

    def read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """`parse` raises ValueError with a sentence for the client."""
        if name not in self._values:
            return default
        try:
            if "\0" in self._values[name]:
                raise ValueError("must not hold NUL characters")
            return parse(self._values[name])
        except ValueError as error:
            self._fault(name, str(error))
            return default

    def finish(self) -> None:
        """Raises InvalidRequest if any parameter was wrong."""
        if self._faults:
            raise InvalidRequest(self._faults)

    def _fault(self, name: str, message: str) -> None:
        if len(self._faults) < FAULTS_MAX:
            self._faults.append(Fault(name, message))


def whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def one_of(choices: type[Choice]) -> Callable[[str], Choice]:

    def parse(text: str) -> Choice:
        try:
            return choices(text)
        except ValueError as error:
            raise ValueError(f"must be one of {', '.join(choices)}") from error

    return parse
