"""Receivers that break every rule, all at once: each attempt has a clear end, in time, and the next is as usual."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from tests.support.fakes import Receiver
from tests.support.gateway import Gateway
from tests.support.rude import Step, drips, ends_its_half, holds, read, repeats, resets, rude_receiver, says

TIMEOUT_SECONDS = 1.0
LATE_SECONDS = 1.0
"""By so much an attempt may end after its time on a machine that is busy."""
MEBIBYTES_MORE_MAX = 64

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TEN_MEGABYTES = b"x" * 10_000_000

BREAKING_OFF: dict[str, tuple[list[Step], set[str | int]]] = {
    "closes before it reads": ([], {"connection_closed", "connection_reset"}),  # as what was sent has arrived or not
    "closes without an answer": ([read], {"connection_closed"}),
    "ends its half without an answer": ([read, ends_its_half], {"connection_closed"}),
    "closes in the first line": ([read, says(b"HTTP/1.1 2")], {"connection_closed"}),
    "closes in mid-header": ([read, says(OK + b"Content-Le")], {"connection_closed"}),
    "closes after an interim answer": ([read, says(b"HTTP/1.1 100 Continue\r\n\r\n")], {"connection_closed"}),
    "resets without an answer": ([read, resets], {"connection_reset"}),
    "resets in mid-header": ([read, says(OK + b"Content-Le"), resets], {"connection_reset"}),
    "resets in mid-body": ([read, says(OK + b"Content-Length: 9\r\n\r\nok"), resets], {200}),
    "closes in mid-body": ([read, says(OK + b"Content-Length: 9\r\n\r\nok")], {200}),
    "closes in mid-chunk": ([read, says(CHUNKED + b"9\r\nok")], {200}),
    "ends its half in mid-body": ([read, says(OK + b"Content-Length: 9\r\n\r\nok"), ends_its_half], {200}),
}
NO_HTTP: dict[str, tuple[list[Step], set[str | int]]] = {
    "speaks SSH": ([says(b"SSH-2.0-OpenSSH_9.2\r\n"), holds], {"invalid_response"}),
    "speaks TLS": ([read, says(b"\x15\x03\x01\0\x02\x02\x46"), holds], {"invalid_response"}),
    "speaks HTTP/2": ([read, says(b"\0\0\x12\x04\0\0\0\0\0" + bytes(18)), holds], {"invalid_response"}),
    "says zeros": ([read, says(bytes(3_000)), holds], {"invalid_response"}),
    "has two lengths": (
        [read, says(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok"), holds],
        {"invalid_response"},
    ),
    "has a length below zero": ([read, says(OK + b"Content-Length: -2\r\n\r\nok"), holds], {"invalid_response"}),
    "has a status that is none": ([read, says(b"HTTP/1.1 -200 OK\r\nContent-Length: 0\r\n\r\n")], {"invalid_response"}),
    "has a status that means nothing": ([read, says(b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n")], {0}),
    "switches protocols": ([read, says(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), holds], {101}),
}
WITHOUT_END: dict[str, tuple[list[Step], set[str | int]]] = {
    "accepts and no more": ([holds], {"timeout"}),
    "answers byte by byte": ([read, drips(OK + b"X: y\r\n" * 100)], {"timeout"}),
    "has a body byte by byte": ([read, says(OK + b"Content-Length: 600\r\n\r\n"), drips(b"x" * 600)], {200}),
    "never closes": ([read, says(OK + b"Connection: keep-alive\r\n\r\nok"), holds], {200}),
    "goes on after its answer": ([read, says(OK + b"Content-Length: 2\r\n\r\nok"), holds], {200}),
    "answers 10 MB": ([read, says(OK + b"Content-Length: 10000000\r\n\r\n" + TEN_MEGABYTES)], {200}),
    "answers for ever": ([read, says(OK + b"Content-Length: 99999999999\r\n\r\n"), repeats(b"x" * 99_999)], {200}),
    "has an endless head": ([read, says(OK), repeats(b"X-Filler: 1\r\n" * 100)], {"invalid_response"}),
    "has an endless header": ([read, says(OK + b"X: "), repeats(b"x" * 9_999)], {"invalid_response"}),
    "has a head of a megabyte": ([read, says(OK + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n"), holds], {"invalid_response"}),
    "asks to continue for ever": ([read, repeats(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0.001)], {"timeout"}),
    "says line ends for ever": ([read, repeats(b"\r\n" * 100, 0.001)], {"timeout"}),
    "has a chunk without a size": ([read, says(CHUNKED + b"1;"), repeats(b"x" * 999, 0.001)], {200}),
}  # fmt: skip
RUDE = BREAKING_OFF | NO_HTTP | WITHOUT_END


@pytest.fixture
def ports() -> Iterator[dict[str, int]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(rude_receiver(steps)) for name, (steps, _) in RUDE.items()}


async def test_rude_receivers(gateway: Gateway, receiver: Receiver, superuser: Any, ports: dict[str, int]) -> None:
    """One that is well gets its webhook before they are through, though it comes last."""
    await superuser.execute("UPDATE fraud_rules SET is_active = false")
    payments = {
        name: (await replace(gateway, receiver=Receiver(port=port)).succeeded(name)).id for name, port in ports.items()
    }
    well = await gateway.succeeded("well")
    memory_before = memory()
    async with asyncio.timeout(30):
        worker = gateway.worker(webhook_timeout_seconds=TIMEOUT_SECONDS, webhook_concurrency_per_tenant=len(RUDE) + 1)
        delivering = asyncio.create_task(worker.run_due())
        await receiver.wait_for(1)
        assert not delivering.done()
        assert await delivering == len(RUDE) + 1
    assert memory() - memory_before < MEBIBYTES_MORE_MAX
    first = await attempts(superuser)
    outcomes = {name: first[id_]["error"] or first[id_]["response_status"] for name, id_ in payments.items()}
    assert {name: outcome for name, outcome in outcomes.items() if outcome not in RUDE[name][1]} == {}
    assert first[well.id]["response_status"] == 200
    late = (TIMEOUT_SECONDS + LATE_SECONDS) * 1000
    assert {name for name, id_ in payments.items() if first[id_]["duration_milliseconds"] > late} == set()
    assert first[payments["answers 10 MB"]]["response_body"] == "x" * 4096
    failed = {payments[name] for name, outcome in outcomes.items() if outcome != 200}
    left = await waiting(superuser)
    assert {each["payment_id"] for each in left} == failed
    assert {each["status"] for each in left} == {"pending"}
    await superuser.execute("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'pending'")
    assert await gateway.worker(webhook_timeout_seconds=TIMEOUT_SECONDS).run_due() == len(failed)
    assert await waiting(superuser) == [], "all are well again"


def memory() -> float:
    """The most that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def attempts(superuser: Any) -> dict[Any, Any]:
    """By payment."""
    rows = await superuser.fetch(
        """
        SELECT payment_id, delivery_attempts.*
        FROM delivery_attempts JOIN webhook_deliveries ON webhook_deliveries.id = delivery_id
        """
    )
    return {row["payment_id"]: row for row in rows}


async def waiting(superuser: Any) -> list[Any]:
    rows: list[Any] = await superuser.fetch("SELECT * FROM webhook_deliveries WHERE status <> 'delivered'")
    return rows
