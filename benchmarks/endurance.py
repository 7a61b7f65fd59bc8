"""Minutes of mixed load at four fifths of what the machine can do: is there an error, does memory grow, do times?

python -m benchmarks.endurance [--minutes 10]
"""

import argparse
import asyncio
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.support.background import Background
from tests.support.processes import Program, running

from benchmarks import load
from benchmarks.report import Report
from benchmarks.servers import api, embedded
from mockpay.logs import configure_logging
from mockpay.postgres.pool import connect

PROCESSES: Final = 2
CONNECTIONS: Final = 32
SHARE: Final = 0.8
PENDING = "SELECT count(*) FROM webhook_deliveries WHERE status = 'pending'"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance")
    parser.add_argument("--minutes", type=int, default=10)
    minutes: int = parser.parse_args().minutes
    configure_logging(json_lines=False, level="warning")
    report = Report()
    with tempfile.TemporaryDirectory(prefix="mockpay-endurance-") as name, closing(Background(0)) as sink:
        folder = Path(name)
        with embedded(folder) as access, api(folder, access, PROCESSES) as gateway:
            worker = Program(folder / "worker.log", "worker", **load.SETTINGS, MOCKPAY_DATABASE_URL=access.url)
            with running(worker):
                keys = load.registered(gateway, 1)
                paid = [gateway.pay(None, f"to be read {number}") for number in range(4)]

                def minute(seconds: float, **more: str) -> load.Result:
                    return load.measure(
                        gateway, "mixed", keys, folder, connections=CONNECTIONS, seconds=seconds, ids=paid,
                        warm_up=False, SINK=sink.receiver.url, **more,
                    )  # fmt: skip

                most = minute(10).per_second
                report.section(
                    f"Mixed load at {SHARE * most:,.0f} requests a second, {SHARE:.0%} of the most",
                    "minute", "a second", "p50 ms", "p99 ms", "errors", "memory MB", "webhooks that wait",
                )  # fmt: skip
                for number in range(minutes):
                    found = minute(60, RATE=str(SHARE * most))
                    report.row(
                        number + 1, f"{found.per_second:,.0f}", f"{found.p50 * 1000:.1f}", f"{found.p99 * 1000:.1f}",
                        found.errors, f"{found.memory / 2**20:.1f}", asyncio.run(waiting(access.url)),
                    )  # fmt: skip
                time.sleep(2)
                report.text(f"Two seconds after the end {asyncio.run(waiting(access.url))} webhooks wait.")
                worker.stop()


async def waiting(url: str) -> int:
    connection = await connect(url)
    count: int = await connection.fetchval(PENDING)
    await connection.close()
    return count


main()
