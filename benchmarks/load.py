"""Load on the API by wrk, from a process of its own, and what it took of the machine."""

import os
import re
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import psutil
from tests.support.processes import Gateway

SETTINGS = {
    "MOCKPAY_LOG_LEVEL": "warning",
    "MOCKPAY_RATE_LIMIT_STANDARD": "1000000000",  # counted, and out of reach
}
SCRIPTS = Path(__file__).with_name("wrk")


class Server(Protocol):
    """Whatever answers HTTP, and the process that was started for it."""

    client: httpx.Client
    process: "subprocess.Popen[bytes]"


@dataclass(frozen=True)
class Result:
    """Times in seconds; CPU and memory of the server's processes, CPU of the database's, in seconds and bytes."""

    requests: int
    seconds: float
    p50: float
    p95: float
    p99: float
    errors: int
    api_cpu: float
    database_cpu: float
    memory: int
    output: str

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def measure(
    server: Server,
    case: str,
    keys: list[str],
    folder: Path,
    *,
    connections: int,
    seconds: float,
    ids: Sequence[str] = (),
    script: str = "requests.lua",
    warm_up: bool = True,
    **more: str,
) -> Result:
    """Each request is of the next tenant in turn, and of the next payment of `ids`. The script is told `more`."""
    key_file, id_file = folder / "keys", folder / "ids"
    key_file.write_text("\n".join(keys) + "\n")
    id_file.write_text("\n".join(ids) + "\n")
    environment = os.environ | {"CASE": case, "KEYS": str(key_file)} | ({"IDS": str(id_file)} if ids else {}) | more
    url = str(server.client.base_url).rstrip("/")
    command = ["wrk", "-t", "1", "-c", str(connections), "--timeout", "30s", "-s", str(SCRIPTS / script), url]
    if warm_up:
        subprocess.run([*command, "-d", "1s"], env=environment, check=True, capture_output=True)
    of_server = processes(server)
    before = cpu(of_server), cpu(database_processes())
    done = subprocess.run(
        [*command, "-d", f"{seconds:g}s"], env=environment, check=True, capture_output=True, text=True
    )
    found = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)", done.stdout)
    assert found, done.stdout
    p50, p95, p99 = (float(found[number]) / 1e6 for number in (3, 4, 5))
    return Result(
        requests=int(found[1]),
        seconds=int(found[2]) / 1e6,
        p50=p50,
        p95=p95,
        p99=p99,
        errors=int(found[6]),
        api_cpu=cpu(of_server) - before[0],
        database_cpu=cpu(database_processes()) - before[1],
        memory=max(process.memory_info().rss for process in of_server),
        output=done.stdout,
    )


def registered(gateway: Gateway, tenants: int) -> list[str]:
    """API keys of new ones. The velocity rule is on, and counts each for itself."""
    return [gateway.register(f"{uuid.uuid4()}@example.com")["api_key"] for _ in range(tenants)]


def processes(server: Server) -> list[psutil.Process]:
    """The one that was started, and its children."""
    parent = psutil.Process(server.process.pid)
    return [parent, *parent.children(recursive=True)]


def database_processes() -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if process.name().startswith("postgres")]


def cpu(of: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in of if process.is_running())
