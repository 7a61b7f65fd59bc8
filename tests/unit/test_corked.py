"""What is written in one turn of the loop is one write; and nothing is lost, or late, at the end of a connection."""

import asyncio
from typing import Any, cast

from mockpay.faults.protocol import Corked


class Wire:
    def __init__(self) -> None:
        self.did: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.did.append(data)

    def close(self) -> None:
        self.did.append("closed")

    def abort(self) -> None:
        self.did.append("aborted")

    def is_closing(self) -> bool:
        return "aborted" in self.did

    def get_extra_info(self, name: str) -> str:
        return f"the {name}"


def corked(wire: Wire) -> Corked:
    return Corked(cast("Any", wire), asyncio.get_running_loop())


async def test_head_and_body_are_one_write() -> None:
    wire = Wire()
    transport = corked(wire)
    transport.write(b"head ")
    transport.write(b"body")
    assert wire.did == []
    await asyncio.sleep(0)
    transport.write(b"next")
    await asyncio.sleep(0)
    assert wire.did == [b"head body", b"next"]


async def test_what_was_written_goes_out_before_it_closes() -> None:
    wire = Wire()
    transport = corked(wire)
    transport.write(b"last")
    transport.close()
    await asyncio.sleep(0)
    assert wire.did == [b"last", "closed"]


async def test_a_reset_keeps_back_what_was_not_sent_yet() -> None:
    wire = Wire()
    transport = corked(wire)
    transport.write(b"never")
    transport.abort()
    await asyncio.sleep(0)
    assert wire.did == ["aborted"]


async def test_what_is_written_to_a_connection_that_ended_is_dropped() -> None:
    """uvloop's transport raises at a write then."""
    wire = Wire()
    transport = corked(wire)
    transport.write(b"never")
    wire.abort()
    await asyncio.sleep(0)
    transport.write(b"neither")
    await asyncio.sleep(0)
    assert wire.did == ["aborted"]


async def test_all_else_is_the_transports() -> None:
    transport = corked(Wire())
    assert (transport.is_closing(), transport.get_extra_info("socket")) == (False, "the socket")
