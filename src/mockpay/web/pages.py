"""One page of a list: what a client asks for, and what it gets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID

import msgspec

from mockpay.cursor import LAST_ID, Cursor
from mockpay.web.parameters import LIMIT_MAX, QueryReader, whole_number

SIZE: Final = 10
"""Of a page, where the client says nothing."""


class Listed(Protocol):
    @property
    def created_at(self) -> datetime: ...
    @property
    def id(self) -> UUID: ...


Row = TypeVar("Row", bound=Listed)


class PageRequest(msgspec.Struct, frozen=True):
    """`of` names the list, whose cursors no other list takes."""

    of: str
    size: int
    after: Cursor | None

    @property
    def fetched(self) -> int:
        """How many rows to read: one more than the page holds, to see whether there are more."""
        return self.size + 1

    @property
    def before_id(self) -> UUID:
        """Where to go on in a list that is ordered by id alone, newest first."""
        return self.after.id if self.after else LAST_ID

    def cut(self, found: Sequence[Row]) -> "Page[Row]":
        shown = found[: self.size]
        has_more = len(found) > self.size
        return Page(shown, Cursor(shown[-1].created_at, shown[-1].id).encode(self.of) if has_more else None)


class Page(msgspec.Struct, Generic[Row], frozen=True):
    rows: Sequence[Row]
    next_cursor: str | None


def read_page(reader: QueryReader, of: str, size: int = SIZE) -> PageRequest:
    """From the parameters `limit` and `cursor`. The reader collects what is wrong with them."""
    limit = reader.read("limit", whole_number(1, LIMIT_MAX), size)
    return PageRequest(of, limit, reader.read("cursor", lambda text: Cursor.decode(text, of), None))
