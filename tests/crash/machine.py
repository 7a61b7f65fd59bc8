"""What runs and gets killed: a gateway with its embedded database, and beside it one more API process and one worker."""

import contextlib
import itertools
import random
import time
from pathlib import Path
from typing import Final

import httpx
import psutil

from mockpay.postgres.embedded import APPLICATION, DATABASE, EmbeddedPostgres
from tests.support.processes import Program, kill_database, wait_until
from tests.support.servers import free_port

ADMIN_KEY: Final = "the-admin-key-of-the-crashes"
VICTIMS: Final = ("serve", "api", "worker", "database", "everything")
_RESTART_SECONDS: Final = 0.3


class Machine:
    """Each part is started again a moment after it ended, as a service manager would do it."""

    def __init__(self, folder: Path, seed: int) -> None:
        """The victims follow from the seed, whatever the timing is."""
        self._folder = folder
        self._data_dir = folder / "data"
        chance = random.Random(f"{seed} victims")
        self._victims = itertools.chain(
            chance.sample(VICTIMS, len(VICTIMS)),
            (chance.choices(VICTIMS, (3, 3, 3, 3, 1))[0] for _ in itertools.count()),
        )
        self._pauses = random.Random(f"{seed} pauses")
        self._ports = {"serve": free_port(), "api": free_port()}
        self._programs: dict[str, Program] = {}
        self.kills: dict[str, int] = dict.fromkeys(VICTIMS, 0)
        self.restarts = 0
        self.surprises: list[str] = []
        self._start("serve")
        self.wait_until_ready("serve")
        self._database = EmbeddedPostgres(self._data_dir)
        assert self._database.join(), "it runs"
        for part in ("api", "worker"):
            self._start(part)
        self.wait_until_ready("api")

    def url(self, part: str) -> str:
        return f"http://127.0.0.1:{self._ports[part]}"

    @property
    def database_url(self) -> str:
        return self.database_url_of(APPLICATION)

    def database_url_of(self, role: str, database: str = DATABASE) -> str:
        return self._database.url(role, database)

    def kill_one(self) -> str:
        """A victim by chance, each of them once in the beginning; what it was."""
        victim = next(self._victims)
        self.kills[victim] += 1
        parts = list(self._programs) if victim == "everything" else [victim]
        for part in parts:
            if part in self._programs:
                self._programs.pop(part).kill()
        if victim in ("database", "everything"):
            kill_database(self._data_dir)
        return victim

    def tend(self) -> None:
        """Start what does not run. That the gateway ended without being killed is a surprise; others need a database."""
        for part in ("serve", "api", "worker"):
            program = self._programs.get(part)
            if program is not None and program.process.poll() is not None:
                if part == "serve":
                    self.surprises.append(f"{part} ended by itself: {program.output[-2000:]}")
                del self._programs[part]
                program = None
            if program is None:
                time.sleep(self._pauses.random() * _RESTART_SECONDS)
                self._start(part)
                self.restarts += 1

    def settle(self) -> None:
        """Everything runs, and answers."""

        def all_ready() -> bool:
            self.tend()
            return all(self._is_ready(part) for part in self._ports)

        wait_until(all_ready)

    def wait_until_ready(self, part: str) -> None:
        wait_until(lambda: self._is_ready(part))

    def close(self) -> None:
        for program in self._programs.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                program.kill()
        kill_database(self._data_dir)

    def _start(self, part: str) -> None:
        settings = {
            "MOCKPAY_DATA_DIR": str(self._data_dir),
            "MOCKPAY_PORT": str(self._ports.get(part, 0)),
            "MOCKPAY_ADMIN_KEY": ADMIN_KEY,
            "MOCKPAY_RATE_LIMIT_TIER": "unlimited",
            "MOCKPAY_WEBHOOK_ATTEMPTS": "5",
            "MOCKPAY_WEBHOOK_TIMEOUT_SECONDS": "1",
            "MOCKPAY_WEBHOOK_BACKOFF_SECONDS": "0.1",
            "MOCKPAY_LOG_LEVEL": "warning",
        }
        if part != "serve":
            settings["MOCKPAY_DATABASE_URL"] = self.database_url
        self._programs[part] = Program(self._folder / f"{part}.log", part, **settings)

    def _is_ready(self, part: str) -> bool:
        try:
            return httpx.get(f"{self.url(part)}/ready", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False
