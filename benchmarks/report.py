"""Results as a page: with the machine, the versions and the date, and what the design wants to reach."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.load import Result

PAGE = Path(__file__).with_name("results.md")
PACKAGES = ("litestar", "uvicorn", "uvloop", "httptools", "asyncpg", "msgspec", "aiohttp")


class Report:
    """Prints each line as it comes, and keeps all for the page."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._bars: list[tuple[str, str, str, str]] = []

    def section(self, title: str, *columns: str) -> None:
        self._say(f"\n## {title}\n")
        if columns:
            self._say(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")

    def row(self, *cells: object) -> None:
        self._say(f"| {' | '.join(map(str, cells))} |")

    def text(self, text: str) -> None:
        self._say(f"\n{text}")

    def load(self, what: str, found: Result, ceiling: float) -> None:
        """As `LOAD_COLUMNS` names them."""
        self.row(
            what, f"{found.per_second:,.0f}", f"{found.per_second / ceiling:.2f}",
            *(f"{seconds * 1000:.1f}" for seconds in (found.p50, found.p95, found.p99)), f"{found.p99 / found.p50:.1f}",
            f"{found.api_cpu / found.requests * 1e6:.0f}", f"{found.database_cpu / found.requests * 1e6:.0f}",
            f"{found.memory / 2**20:.0f}", found.errors,
        )  # fmt: skip

    def bar(self, what: str, reach: str, measured: str, *, is_met: bool) -> None:
        """One of those that the design sets."""
        self._bars.append((what, reach, measured, "met" if is_met else "**missed**"))

    def write(self) -> None:
        """Prints once more what is to be reached, and writes the page, on which it comes first."""
        measured, self._parts = self._parts, []
        self.section("To reach, and measured", "what", "to reach", "measured", "")
        for cells in self._bars:
            self.row(*cells)
        PAGE.write_text(head() + "\n".join([*self._parts, *measured]).strip() + "\n")

    def _say(self, text: str) -> None:
        print(text, flush=True)
        self._parts.append(text)


LOAD_COLUMNS: Sequence[str] = (
    "what", "a second", "of the ceiling", "p50 ms", "p95 ms", "p99 ms", "p99 in p50s", "API CPU µs", "database CPU µs",
    "memory MB", "errors",
)  # fmt: skip


def head() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        "# Results of `make bench`\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} on {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}. Client, API and database share the machine.\n\n"
        "Compare ratios within one run only: machines differ, and are noisy. CPU is for each request, in microseconds; "
        "memory is of the largest process.\n\n"
    )
