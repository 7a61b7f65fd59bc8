"""Measure, and write results.md: ratios within this run, since absolute figures compare to nothing.

python -m benchmarks --peers FOLDER [--seconds 4]
"""

import argparse
import asyncio
import tempfile
import time
import uuid
from pathlib import Path

from tests.support.processes import Gateway, running

from benchmarks import ceiling, deliveries, faults, growth, hostile, load, peers
from benchmarks.report import LOAD_COLUMNS, Report
from benchmarks.servers import api, embedded
from mockpay.database_access import DatabaseAccess
from mockpay.logs import configure_logging
from mockpay.postgres.pool import connect

CONNECTIONS = (1, 8, 32, 128, 512)
THRESHOLDS = (5, 1_000, 1_000_000)
NODE_PER_SECOND = 394
"""What the original of this idea does with 8 connections, on another machine; with 32 it locks up."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each measurement takes")
    parser.add_argument("--peers", type=Path, required=True, help="where the programs are that are compared with")
    options = parser.parse_args()
    configure_logging(json_lines=False, level="warning")
    report = Report()
    with tempfile.TemporaryDirectory(prefix="mockpay-bench-") as name:
        folder = Path(name)
        measure_database(report, folder, options.seconds)
        measure_neighbours(report, folder)
        measure_peers(report, folder, options.peers, options.seconds)
        measure_growth(report, folder)
        measure_deliveries(report, folder)
        measure_starts(report, folder)
    report.write()


def measure_database(report: Report, folder: Path, seconds: float) -> None:
    """Everything on one embedded server, as a user runs it: durable commits and all."""
    with embedded(folder) as access:
        limit = ceiling.transactions_per_second(access, folder, seconds)
        report.text(
            f"The ceiling, **1.00**: {limit:,.0f} payments a second, which pgbench writes with the same rows, one a "
            "transaction, prepared, 32 clients, and nothing else in between."
        )
        report.section("Creates", *LOAD_COLUMNS)
        creates: dict[tuple[int, int, int], load.Result] = {}
        idle = 0.0
        for processes in (1, 2):
            with api(folder, access, processes) as gateway:
                idle = max(idle, *(process.memory_info().rss / 2**20 for process in load.processes(gateway)))
                creates |= measure_creates(report, gateway, folder, processes, seconds, limit)
        report_bars(report, creates, idle, limit)
        measure_thresholds(report, folder, access, seconds, limit)
        with api(folder, access, 2) as gateway:
            measure_others(report, gateway, folder, seconds, limit)
        measure_faults(report, folder, access, seconds)


def measure_creates(
    report: Report, gateway: Gateway, folder: Path, processes: int, seconds: float, limit: float
) -> dict[tuple[int, int, int], load.Result]:
    """By processes, tenants and connections."""
    creates = {}
    for tenants in (100, 1):
        keys = load.registered(gateway, tenants)
        for connections in CONNECTIONS:
            found = load.measure(gateway, "create", keys, folder, connections=connections, seconds=seconds)
            who = "one tenant" if tenants == 1 else f"{tenants} tenants"
            report.load(f"{processes} process(es), {who}, {connections} connection(s)", found, limit)
            creates[processes, tenants, connections] = found
    return creates


def report_bars(report: Report, creates: dict[tuple[int, int, int], load.Result], idle: float, limit: float) -> None:
    of_100, of_one = (creates[2, tenants, 32].per_second / limit for tenants in (100, 1))
    report.bar(
        "create, 32 connections, 2 processes, 100 tenants",
        "≥ 0.6 of the ceiling",
        f"{of_100:.2f}",
        is_met=of_100 >= 0.6,
    )
    report.bar("the same, all of one tenant", "≥ 0.6 of the ceiling", f"{of_one:.2f}", is_met=of_one >= 0.6)
    times = creates[2, 100, 32].per_second / NODE_PER_SECOND
    report.bar(
        f"the same to the Node original's {NODE_PER_SECOND}/s (of another machine)", "≥ 8 times", f"{times:.1f} times",
        is_met=times >= 8,
    )  # fmt: skip
    errors = sum(found.errors for key, found in creates.items() if key[2] == 512)
    report.bar("create, 512 connections", "no deadlock, no error", f"{errors} errors", is_met=errors == 0)
    tails = [found.p99 / found.p50 for key, found in creates.items() if key[2] == 32]
    report.bar(
        "p99 of a create, 32 connections, 1 and 2 processes, 1 and 100 tenants", "≤ 4 times p50",
        ", ".join(f"{tail:.1f}" for tail in tails), is_met=max(tails) <= 4,
    )  # fmt: skip
    under_load = max(found.memory for found in creates.values()) / 2**20
    report.bar("memory of a process, idle", "≤ 120 MB", f"{idle:.0f} MB", is_met=idle <= 120)
    report.bar("memory of a process, under load", "≤ 250 MB", f"{under_load:.0f} MB", is_met=under_load <= 250)


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


def measure_peers(report: Report, folder: Path, programs: Path, seconds: float) -> None:
    """In turns, with a database of its own for MockPay."""
    own = folder / "peers"
    own.mkdir()
    report.section(
        "A payment is created and confirmed, two requests, one process, 32 connections, one tenant",
        "what", "payments a second", "p50 ms of a request", "p99 ms", "errors",
    )  # fmt: skip
    rates = {}
    with (
        embedded(own) as access,
        api(own, access, 1, MOCKPAY_ADMIN_KEY=peers.ADMIN_KEY) as gateway,
        peers.localstripe(programs, port=18420) as other,
    ):
        for name, (found, rate) in (
            ("MockPay, durable", peers.of_mockpay(gateway, own, seconds)),
            ("localstripe, in memory, without idempotency", peers.of_localstripe(other, own, seconds)),
        ):
            rates[name] = rate
            report.row(name, f"{rate:,.0f}", f"{found.p50 * 1000:.1f}", f"{found.p99 * 1000:.1f}", found.errors)
    ours, theirs = rates.values()
    report.text(f"MockPay's payments a second are {ours / theirs:.1f} times those of localstripe.")


def measure_neighbours(report: Report, folder: Path) -> None:
    """In a database of its own."""
    report.section(
        "What a tenant notices of a hostile neighbour: medians, with a usual one and with a hostile one, in turns",
        "what the neighbour does", "create ms", "webhook ms", "create, ratio", "webhook, ratio",
    )  # fmt: skip
    for what, usual, attacked in hostile.measure(folder):
        ratios = attacked.create / usual.create, attacked.webhook / usual.webhook
        times = (f"{one * 1000:.1f} → {other * 1000:.1f}" for one, other in (
            (usual.create, attacked.create), (usual.webhook, attacked.webhook),
        ))  # fmt: skip
        report.row(what, *times, *(f"{ratio:.2f}" for ratio in ratios))
        report.bar(
            f"beside a neighbour with {what}", "≤ 2 times the usual", " and ".join(f"{ratio:.2f}" for ratio in ratios),
            is_met=max(ratios) <= 2,
        )  # fmt: skip


def measure_thresholds(report: Report, folder: Path, access: DatabaseAccess, seconds: float, limit: float) -> None:
    """One tenant, whose payments a velocity rule counts. A new tenant each time, so that each begins at nothing."""
    report.section("Creates of one tenant by the threshold of the velocity rule, 32 connections", *LOAD_COLUMNS)
    found: dict[tuple[int, int], float] = {}
    for _ in range(2):
        for processes in (1, 2):
            with api(folder, access, processes) as gateway:
                for threshold in THRESHOLDS:
                    asyncio.run(set_threshold(access, threshold))
                    keys = load.registered(gateway, 1)
                    result = load.measure(gateway, "create", keys, folder, connections=32, seconds=seconds)
                    report.load(f"{processes} process(es), threshold {threshold:,}", result, limit)
                    found[processes, threshold] = max(result.per_second, found.get((processes, threshold), 0.0))
    asyncio.run(set_threshold(access, THRESHOLDS[0]))
    for threshold in THRESHOLDS[1:]:
        of_limit = found[2, threshold] / limit
        report.bar(
            f"create, 32 connections, 2 processes, one tenant, threshold {threshold:,}, better of two rounds",
            "≥ 0.6 of the ceiling",
            f"{of_limit:.2f}", is_met=of_limit >= 0.6,
        )  # fmt: skip
        of_one = found[2, threshold] / found[1, threshold]
        report.bar(
            f"2 processes to 1, the same, better rounds, threshold {threshold:,}",
            "≥ 1",
            f"{of_one:.2f}",
            is_met=of_one >= 1,
        )
    between = found[2, THRESHOLDS[2]] / found[2, THRESHOLDS[1]]
    report.bar(
        f"threshold {THRESHOLDS[2]:,} to {THRESHOLDS[1]:,}, 2 processes, better rounds",
        "≥ 0.9: no dependence", f"{between:.2f}",
        is_met=between >= 0.9,
    )  # fmt: skip


async def set_threshold(access: DatabaseAccess, threshold: int) -> None:
    connection = await connect(access.migration_url)
    await connection.execute("UPDATE fraud_rules SET threshold = $1 WHERE rule_type = 'velocity'", threshold)
    await connection.close()


def measure_faults(report: Report, folder: Path, access: DatabaseAccess, seconds: float) -> None:
    report.section(
        "What faults and the timeline cost a create, in turns", "what", "a second", "median ratio", "in single rounds"
    )
    for what, a_second, ratio, rounds in faults.cost(folder, access, seconds):
        report.row(what, a_second, ratio, rounds)
        if what == faults.WITH_RULE:
            report.bar(f"create, {what}", "≥ 0.85 of one without", ratio, is_met=float(ratio) >= 0.85)


def measure_deliveries(report: Report, folder: Path) -> None:
    """In a database of its own."""
    own = folder / "deliveries"
    own.mkdir()
    report.section(
        "Deliveries, signed and logged, one worker process, one sink", "what", "attempts a second", "worker memory MB"
    )
    with embedded(own) as access:
        for what, queued, failing in (
            (f"{deliveries.QUEUED:,} wait, all are accepted", deliveries.QUEUED, 0),
            (f"{deliveries.QUEUED:,} wait, one in ten is refused, and tried again later", deliveries.QUEUED, 10),
            (f"{deliveries.BACKLOG:,} wait, all are accepted", deliveries.BACKLOG, 0),
        ):
            rate, memory = asyncio.run(deliveries.measure(access, own, queued=queued, failing=failing))
            report.row(what, f"{rate:,.0f}", f"{memory:.0f}")
            report.bar(f"deliveries, {what}", "≥ 1,000/s", f"{rate:,.0f}/s, {memory:.0f} MB", is_met=rate >= 1000)


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
    with embedded(own) as access, api(own, access, 1, MOCKPAY_ADMIN_KEY=growth.ADMIN_KEY) as gateway:
        times = growth.measure(gateway, access)
    for name, found in times.items():
        report.row(name, *(f"{each:.1f}" for each in found), f"{found[-1] / found[0]:.1f}")
    first, far = times["list, first 100"][-1], times["list, 100 at the far end"][-1]
    report.bar(
        f"list at depth, {growth.SIZES[-1]:,} payments", "≤ 1.2 times the first page", f"{far / first:.2f} times",
        is_met=far / first <= 1.2,
    )  # fmt: skip
    for name, bound in (("audit of a payment", 50), ("admin metrics", 100)):
        took = times[name][-1]
        report.bar(f"{name}, the same", f"≤ {bound} ms", f"{took:.1f} ms", is_met=took <= bound)


def measure_starts(report: Report, folder: Path) -> None:
    report.section("Starts, to an answer of /ready", "what", "seconds")
    for what in ("first, on an empty folder", "a later one"):
        started = time.perf_counter()
        gateway = Gateway(folder / "serve.log", MOCKPAY_DATA_DIR=str(folder / "starts"))
        with running(gateway):
            gateway.client.get("/ready").raise_for_status()
            report.row(what, f"{time.perf_counter() - started:.2f}")
            gateway.stop()


def created(gateway: Gateway) -> str:
    body = {"amount": 5, "currency": "USD"}
    answer = gateway.client.post("/api/payments", json=body, headers={"Idempotency-Key": uuid.uuid4().hex})
    payment_id: str = answer.json()["id"]
    return payment_id


main()
