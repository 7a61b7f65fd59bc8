"""Makes the files of a new database, with PostgreSQL's initdb, also for a user whom the system doesn't know.

Containers are often run as a user id that has no entry in /etc/passwd, and initdb refuses to work for such a one. The
library nss_wrapper answers its question from a file of ours, as the official PostgreSQL image has it do.
"""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mockpay.errors import StartupError
from mockpay.postgres.server_process import complaint_in
from mockpay.postgres.service_user import ServiceUser

_LIBRARY: Final = "libnss_wrapper.so"
_FOLDERS: Final = ("usr/lib*", "usr/lib/*", "lib*", "lib/*", "usr/local/lib*")
FindLibrary = Callable[[], Path | None]


def find_nss_wrapper() -> Path | None:
    """The library of Debian's package libnss-wrapper, or None."""
    found = (path for folder in _FOLDERS for path in sorted(Path("/").glob(f"{folder}/{_LIBRARY}")))
    return next((path for path in found if path.is_file()), None)


def make_files(
    programs: Path, folder: Path, user: ServiceUser, superuser: str, find_library: FindLibrary = find_nss_wrapper
) -> "subprocess.CompletedProcess[str]":
    """Runs initdb in the empty folder, and returns how it went.

    Raises StartupError where the user is unknown to the system and nothing can be done about it.
    """
    command: list[str | Path] = [
        programs / "initdb",
        *("--no-clean", "--pgdata", folder, "--username", superuser, "--auth=trust", "--encoding=UTF8"),
        *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
    ]
    with _known(os.geteuid() if user.uid is None else user.uid, find_library) as more:
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder.parent,
            env=os.environ | more,
            start_new_session=True,
            **user.process_options(),
        )


def reason_of(failed: "subprocess.CompletedProcess[str]") -> str:
    """Returns why initdb failed, in its own words where it has any."""
    said = [line.strip() for line in failed.stderr.splitlines() if line.strip()]
    return complaint_in(failed.stderr) or (said[0] if said else f"initdb ended with the code {failed.returncode}")


@contextmanager
def _known(uid: int, find_library: FindLibrary) -> Iterator[Mapping[str, str]]:
    """What to add to the environment of a program that asks for the name of this user."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        library = find_library()
    else:
        yield {}
        return
    if library is None:
        raise StartupError(
            f"This user ({uid}) has no entry in /etc/passwd, which PostgreSQL's initdb needs; install the package "
            "libnss-wrapper, run MockPay as a user that has one, or set MOCKPAY_DATABASE_URL."
        )
    with tempfile.TemporaryDirectory(prefix="mockpay-") as made:
        users, groups = Path(made) / "passwd", Path(made) / "group"
        users.write_text(f"mockpay:x:{uid}:{os.getegid()}:MockPay:/:/bin/false\n")
        groups.write_text(f"mockpay:x:{os.getegid()}:\n")
        loaded = " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(library))))
        yield {"LD_PRELOAD": loaded, "NSS_WRAPPER_PASSWD": str(users), "NSS_WRAPPER_GROUP": str(groups)}
