"""A clock that a test sets while programs run by it: MockPay, and the database that it starts."""

from pathlib import Path

from mockpay.postgres.service_user import choose_service_user
from tests.system_packages import find_fake_time


class SetClock:
    """Put `settings` into a program's environment. Only the time of day is set; what measures durations runs on."""

    def __init__(self, folder: Path) -> None:
        library = find_fake_time()
        assert library, "libfaketime is missing; run 'python tests/system_packages.py'"
        # The database runs as another user, where root runs the tests.
        choose_service_user().let_through(folder)
        self._file = folder / "clock"
        self.set(0)
        self.settings = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # it is looked into each time, so that the clock jumps at once
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # the name of the same in releases before 0.9.10
        }

    def set(self, seconds: int) -> None:
        """So far from the true time. In one step: no program reads a half of it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.chmod(0o644)
        new.replace(self._file)
