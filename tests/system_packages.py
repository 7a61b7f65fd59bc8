"""See that what the tests need from the system is there, or what is named.

PostgreSQL 15 or newer, PgBouncer, libfaketime, and on Linux nss_wrapper.

On Debian (and its like) as root the missing packages are installed; elsewhere they are named.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mockpay.postgres.initdb import find_nss_wrapper

Find = Callable[[], Path | None]


def find_program(name: str) -> Path | None:
    """On the PATH, or where Debian keeps PostgreSQL's server programs; of those the oldest version."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[0]
    on_path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    return Path(on_path) if on_path else None


def find_fake_time() -> Path | None:
    """The library of the package `faketime`, which is loaded into programs whose clock is to be set. Linux only."""
    found = [path for folder in ("/usr/lib*", "/usr/lib/*", "/usr/local/lib*") for path in _libraries_in(folder)]
    return found[0] if found else None


def _libraries_in(folder: str) -> list[Path]:
    return sorted(Path("/").glob(f"{folder.removeprefix('/')}/faketime/libfaketime.so.1"))


NEEDED: dict[str, Find] = {
    "postgresql": partial(find_program, "postgres"),
    "pgbouncer": partial(find_program, "pgbouncer"),
    "faketime": partial(find_program, "faketime"),
} | ({"libnss-wrapper": find_nss_wrapper} if sys.platform == "linux" else {})
BY_NAME: dict[str, Find] = {"wrk": partial(find_program, "wrk")}


def missing_packages(needed: dict[str, Find]) -> list[str]:
    return [package for package, find in needed.items() if find() is None]


def main() -> None:
    needed = {name: BY_NAME[name] for name in sys.argv[1:]} or NEEDED
    missing = missing_packages(needed)
    if not missing:
        return
    names = " ".join(missing)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(
            f"This needs {names}. On Debian or Ubuntu: sudo apt-get install {names}. "
            f"On macOS: brew install {names.replace('postgresql', 'postgresql@15').replace('faketime', 'libfaketime')}."
        )
    print(f"Installing {names} ...", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *missing]):
        subprocess.run(["apt-get", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    if missing_packages(needed):
        sys.exit(f"Installing {names} did not help: {' '.join(missing_packages(needed))} not found.")


if __name__ == "__main__":
    main()
