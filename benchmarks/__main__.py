"""Measure, and write results.md: ratios within this run, since absolute figures compare to nothing.

python -m benchmarks [--seconds 4] [--quick]
"""

import argparse
import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import Gateway, running

from benchmarks import ceiling, deliveries, faults, growth, load
from benchmarks.report import LOAD_COLUMNS, Report
from mockpay.logs import configure_logging
from mockpay.postgres.embedded import EmbeddedPostgres
from mockpay.serving import migrate

CONNECTIONS = (1, 8, 32, 128, 512)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each measurement takes")
    options = parser.parse_args()
    configure_logging(json_lines=False, level="warning")
    report = Report()
    with tempfile.TemporaryDirectory(prefix="mockpay-bench-") as name:
        folder = Path(name)
        measure_database(report, folder, options.seconds)
        measure_growth(report, folder)
        measure_starts(report, folder)
    report.write()


def measure_database(report: Report, folder: Path, seconds: float) -> None:
    """Everything on one embedded server, as a user runs it: durable commits and all."""
    with embedded(folder) as url:
        limit = ceiling.transactions_per_second(url, folder, seconds)
        report.text(
            f"The ceiling, **1.00**: {limit:,.0f} payments a second, which pgbench writes with the same rows, one a "
            "transaction, prepared, 32 clients, and nothing else in between."
        )
        report.section("Creates", *LOAD_COLUMNS)
        for processes in (1, 2):
            with api(folder, url, processes) as gateway:
                measure_creates(report, gateway, folder, processes, seconds, limit)
        with api(folder, url, 2) as gateway:
            measure_others(report, gateway, folder, seconds, limit)
        measure_faults(report, folder, url, seconds)
        measure_deliveries(report, url)


def measure_creates(
    report: Report, gateway: Gateway, folder: Path, processes: int, seconds: float, limit: float
) -> None:
    memory = max(process.memory_info().rss for process in load.processes(gateway)) / 2**20
    for tenants in (100, 1):
        keys = load.registered(gateway, tenants)
        for connections in CONNECTIONS:
            found = load.measure(gateway, "create", keys, folder, connections=connections, seconds=seconds)
            who = "one tenant" if tenants == 1 else f"{tenants} tenants"
            report.load(f"{processes} process(es), {who}, {connections} connection(s)", found, limit)
    report.row(f"{processes} process(es), idle before", *[""] * 8, f"{memory:.0f}", "")


def measure_others(report: Report, gateway: Gateway, folder: Path, seconds: float, limit: float) -> None:
    report.section("Other requests, 2 processes, 32 connections, 100 tenants", *LOAD_COLUMNS)
    keys = load.registered(gateway, 100)
    for case in ("replay", "list"):
        found = load.measure(gateway, case, keys, folder, connections=32, seconds=seconds)
        report.load(case, found, limit)
    key = load.registered(gateway, 1)
    ids = [created(gateway) for _ in range(20)]
    for case in ("read", "mixed"):
        report.load(case, load.measure(gateway, case, key, folder, connections=32, seconds=seconds, ids=ids), limit)


def measure_faults(report: Report, folder: Path, url: str, seconds: float) -> None:
    report.section(
        "What faults and the timeline cost a create, in turns", "what", "a second", "median ratio", "in single rounds"
    )
    for cells in faults.cost(folder, url, seconds):
        report.row(*cells)


def measure_deliveries(report: Report, url: str) -> None:
    report.section(
        "Deliveries, signed and logged, one worker process, sink in the same process", "what", "attempts a second"
    )
    for what, failing in (("all are accepted", 0), ("one in ten is refused, and tried again later", 10)):
        report.row(what, f"{asyncio.run(deliveries.per_second(url, failing)):,.0f}")


def measure_growth(report: Report, folder: Path) -> None:
    """In a database of its own."""
    sizes = [f"{size:,} ms" for size in growth.SIZES]
    report.section(
        "One request at a time, as the data grows: payments, three times as many audit entries, as many deliveries",
        "what",
        *sizes,
        "last in firsts",
    )
    own = folder / "growth"
    own.mkdir()
    with embedded(own) as url, api(own, url, 1, MOCKPAY_ADMIN_KEY=growth.ADMIN_KEY) as gateway:
        for cells in growth.measure(gateway, url):
            report.row(*cells)


def measure_starts(report: Report, folder: Path) -> None:
    report.section("Starts, to an answer of /ready", "what", "seconds")
    for what in ("first, on an empty folder", "a later one"):
        started = time.perf_counter()
        gateway = Gateway(folder / "serve.log", MOCKPAY_DATA_DIR=str(folder / "starts"))
        with running(gateway):
            gateway.client.get("/ready").raise_for_status()
            report.row(what, f"{time.perf_counter() - started:.2f}")
            gateway.stop()


@contextmanager
def embedded(folder: Path) -> Iterator[str]:
    postgres = EmbeddedPostgres(folder / "data")
    postgres.launch()
    postgres.wait_until_ready()
    try:
        asyncio.run(migrate(postgres.url()))
        yield postgres.url()
    finally:
        postgres.stop()


@contextmanager
def api(folder: Path, url: str, processes: int, **more: str) -> Iterator[Gateway]:
    settings = {**load.SETTINGS, "MOCKPAY_DATABASE_URL": url, "MOCKPAY_WORKERS": str(processes), **more}
    gateway = Gateway(folder / "api.log", "api", **settings)
    with running(gateway):
        yield gateway
        gateway.stop()


def created(gateway: Gateway) -> str:
    body = {"amount": 5, "currency": "USD"}
    answer = gateway.client.post("/api/payments", json=body, headers={"Idempotency-Key": uuid.uuid4().hex})
    payment_id: str = answer.json()["id"]
    return payment_id


main()
