"""One run: load, kills, and the books afterwards."""

import random
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from tests.crash import books
from tests.crash.books import Findings
from tests.crash.clients import Client
from tests.crash.ledger import Ledger
from tests.crash.machine import ADMIN_KEY, Machine
from tests.crash.weather import Weather
from tests.support.background import Background
from tests.support.processes import end_velocity_rule

CLIENTS: Final = 6
_REFUSED: Final = 0.1


class Outcome(msgspec.Struct):
    seed: int
    seconds: float
    operations: int
    kills: dict[str, int]
    restarts: int
    surprises: list[str]
    findings: Findings

    @property
    def problems(self) -> list[str]:
        return self.surprises + self.findings.all

    def text(self) -> str:
        found = self.findings
        kills = ", ".join(f"{count} of {victim}" for victim, count in self.kills.items())
        checked = ", ".join(f"{count} {what}" for what, count in found.checked.items())
        return (
            f"seed {self.seed}, {self.seconds:.0f} s: {self.operations} operations, "
            f"{sum(self.kills.values())} kills ({kills}), {self.restarts} restarts\n"
            f"checked: {checked}\n"
            f"losses {len(found.losses)}, duplicates {len(found.duplicates)}, "
            f"broken chains {len(found.broken_chains)}, disagreements {len(found.disagreements)}, "
            f"surprises {len(self.surprises)}"
        )


def run(folder: Path, *, seed: int, kills: int, seconds: float, say: Callable[[str], None] = print) -> Outcome:
    """So many kills, spread by chance over about that time."""
    chance = random.Random(seed)
    ledger = Ledger()
    started = time.monotonic()
    with closing(Background(0)) as background, closing(Machine(folder, seed)) as machine:
        background.receiver.answers = [500 if chance.random() < _REFUSED else 200 for _ in range(100_000)]
        end_velocity_rule(machine.url("serve"), ADMIN_KEY)
        urls = [machine.url(part) for part in ("serve", "api")]
        clients = [Client(number, seed, urls, background.receiver.url, ledger) for number in range(CLIENTS)]
        weather = Weather(seed, urls, ADMIN_KEY, [each.api_key for each in clients if each.has_faults], ledger)
        threads: list[Client | Weather] = [*clients, weather]
        for each in threads:
            each.start()
        for number in range(kills):
            _tend_for(machine, chance.uniform(0.2, 1.8) * seconds / kills)
            victim = machine.kill_one()
            say(f"kill {number + 1} of {kills}: {victim}; {len(ledger.told)} answers so far")
        machine.settle()
        for each in threads:
            each.stop()
        books.wait_until_drained(machine.database_url)
        findings = books.check(machine.database_url, ledger, background.receiver.received)
    findings.checked["changes of rules"] = weather.changes
    surprises = ledger.surprises + machine.surprises + [f"no answer for a minute: {key}" for key in ledger.unanswered]
    return Outcome(
        seed=seed, seconds=time.monotonic() - started, operations=len(ledger.asked), kills=machine.kills,
        restarts=machine.restarts, surprises=surprises, findings=findings,
    )  # fmt: skip


def _tend_for(machine: Machine, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        machine.tend()
        time.sleep(0.02)
