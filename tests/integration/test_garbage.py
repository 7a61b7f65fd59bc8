"""Requests leave no cycles behind: to search for them stopped the process for tens of milliseconds under load."""

import gc
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.gateway import register
from tests.support.waiting import until

BODY = {"amount": 5, "currency": "USD"}


@pytest.fixture
def kept_garbage() -> Iterator[list[object]]:
    """What only the search for cycles finds, once it is searched for."""
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def test_a_request_is_freed_when_it_is_over(
    client: httpx.AsyncClient, superuser: Any, kept_garbage: list[object]
) -> None:
    await register(client)
    made: list[str] = []

    async def create(*keys: str) -> None:
        for key in keys:
            answer = await client.post("/api/payments", json=BODY, headers={"Idempotency-Key": key})
            assert answer.status_code == 201
        made.extend(keys)
        # Until then the timeline holds on to them.
        await until(superuser, "SELECT count(*) = $1 FROM requests", len(made))

    await create("first")
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    await create("a", "b", "c")
    gc.collect()
    ours = {type(each).__qualname__ for each in kept_garbage if type(each).__module__.startswith("mockpay")}
    scopes = [each for each in kept_garbage if isinstance(each, dict) and "request_id" in each]
    assert (ours, scopes) == (set(), [])
