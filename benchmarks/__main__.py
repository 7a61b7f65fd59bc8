"""Measure, and print ratios within this run: machines differ, and are noisy, so absolute figures compare to nothing.

python -m benchmarks [--seconds 5]
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from tests.support.processes import Gateway, running
from tests.support.servers import free_port

from benchmarks import ceiling, creates, deliveries, faults
from mockpay.logs import configure_logging
from mockpay.postgres.embedded import EmbeddedPostgres
from mockpay.serving import migrate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each measurement takes")
    configure_logging(json_lines=False, level="warning")
    seconds: float = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="mockpay-bench-") as name:
        folder = Path(name)
        measure_database(folder, seconds)
        measure_starts(folder)


def measure_database(folder: Path, seconds: float) -> None:
    """Everything on one embedded server, as a user runs it: durable commits and all."""
    postgres = EmbeddedPostgres(folder / "data")
    postgres.launch()
    postgres.wait_until_ready()
    try:
        url = postgres.url()
        asyncio.run(migrate(url))
        limit = ceiling.transactions_per_second(postgres.url(), folder, seconds)
        print(f"ceiling: one payment a transaction in the database alone   {limit:8.0f}/s   1.00")
        for processes in (1, 2):
            measure_creates(folder, url, processes, seconds, limit)
        for line in faults.cost(folder, url, seconds):
            print(line)
        rate = asyncio.run(deliveries.per_second(url))
        print(f"deliveries, signed and logged, one worker process          {rate:8.0f}/s")
    finally:
        postgres.stop()


def measure_creates(folder: Path, url: str, processes: int, seconds: float, limit: float) -> None:
    settings = {
        "MOCKPAY_DATABASE_URL": url,
        "MOCKPAY_WORKERS": str(processes),
        "MOCKPAY_LOG_LEVEL": "warning",
        "MOCKPAY_RATE_LIMIT_STANDARD": "1000000000",  # counted, and out of reach
    }
    gateway = Gateway(folder / "api.log", "api", MOCKPAY_PORT=str(free_port()), **settings)
    with running(gateway):
        result = creates.measure(gateway, connections=32, seconds=seconds)
        print(
            f"POST /api/payments, 32 connections, {processes} process(es)            {result.per_second:8.0f}/s   "
            f"{result.per_second / limit:.2f}   p50 {result.p50 * 1000:.1f} ms, p99 {result.p99 * 1000:.1f} ms "
            f"({result.p99 / result.p50:.1f} x p50)"
        )
        gateway.stop()


def measure_starts(folder: Path) -> None:
    for what in ("first start", "second start"):
        started = time.perf_counter()
        gateway = Gateway(folder / "serve.log", MOCKPAY_DATA_DIR=str(folder / "starts"))
        with running(gateway):
            gateway.client.get("/ready").raise_for_status()
            print(f"{what}, to an answer of /ready                        {time.perf_counter() - started:8.2f} s")
            gateway.stop()


main()
