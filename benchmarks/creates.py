"""Load on POST /api/payments from a process of its own, over raw sockets: the client takes little of the cores."""

import asyncio
import json
import multiprocessing
import time
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.processes import Gateway


@dataclass(frozen=True)
class Result:
    """Times in seconds."""

    per_second: float
    p50: float
    p99: float


def measure(
    gateway: Gateway, *, connections: int, seconds: float, fault_rule: dict[str, object] | None = None
) -> Result:
    """Each connection acts for a tenant of its own: the velocity rule is on, and locks each tenant for itself.

    All of them have the rule of faults, if there is one.
    """
    keys = []
    for _ in range(connections):
        keys.append(gateway.register(f"{uuid.uuid4()}@example.com")["api_key"])
        if fault_rule:
            gateway.client.post("/api/faults", json=fault_rule).raise_for_status()
    target = urlsplit(str(gateway.client.base_url))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        times = pool.apply(_load, (target.hostname, target.port, keys, seconds))
    times.sort()
    return Result(len(times) / seconds, times[len(times) // 2], times[len(times) * 99 // 100])


def _load(host: str, port: int, keys: list[str], seconds: float) -> list[float]:
    return asyncio.run(_all_connections(host, port, keys, seconds))


async def _all_connections(host: str, port: int, keys: list[str], seconds: float) -> list[float]:
    await asyncio.gather(*(_one_connection(host, port, key, 1.0) for key in keys))  # to warm up
    found = await asyncio.gather(*(_one_connection(host, port, key, seconds) for key in keys))
    return [each for times in found for each in times]


async def _one_connection(host: str, port: int, api_key: str, seconds: float) -> list[float]:
    """The time of each create, one after the other."""
    reader, writer = await asyncio.open_connection(host, port)
    body = json.dumps({"amount": 49.99, "currency": "USD", "description": "benchmark"})
    head = (
        f"POST /api/payments HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {api_key}\r\nContent-Length: {len(body)}\r\nIdempotency-Key: "
    )
    times = []
    deadline = time.perf_counter() + seconds
    while (started := time.perf_counter()) < deadline:
        writer.write(f"{head}{uuid.uuid4()}\r\n\r\n{body}".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 201"), answer
        await reader.readexactly(int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        times.append(time.perf_counter() - started)
    writer.close()
    return times
