"""How values become parameters of statements."""

from collections.abc import Sequence
from typing import Any

from mockpay import exact_json


def jsonb(value: object | None) -> str | None:
    """None is NULL, and not JSON's null."""
    return None if value is None else exact_json.encode(value).decode()


def columns_of(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """For `unnest`: an array for each of `count` columns, also where there are no rows."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * count
