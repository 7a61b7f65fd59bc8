"""MockPay as a user that the system has no entry for, as containers are often run: no name, no home folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mockpay
from mockpay.errors import StartupError
from mockpay.postgres import initdb
from mockpay.postgres.server_process import programs_folder
from mockpay.postgres.service_user import ServiceUser
from tests.support.processes import Gateway, database_processes, environment, running

UNKNOWN = ServiceUser(12_345, 0)
AS_UNKNOWN = (
    *("setpriv", f"--reuid={UNKNOWN.uid}", f"--regid={UNKNOWN.gid}", "--clear-groups"),
    *("env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME", "-u", "XDG_DATA_HOME"),
)
HIDDEN = 'mount --bind /dev/null "$0" && exec "$@"'
FILES_STAY_SMALL = ("sh", "-c", 'ulimit -f 100 && exec "$@"', "sh")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that there is not")


class UnknownsGateway(Gateway):
    within = AS_UNKNOWN


@pytest.fixture
def own_folder(folder: Path) -> Path:
    """A folder of that user's, who can also reach the programs: root's home may be on the way."""
    for path in (folder, programs_folder(), Path(sys.prefix), Path(sys.base_prefix), Path(mockpay.__file__).parent):
        UNKNOWN.let_through(path)
    made = folder / "own"
    made.mkdir(mode=0o700)
    UNKNOWN.own(made)
    return made


def hidden_library() -> tuple[str, ...]:
    library = initdb.find_nss_wrapper()
    assert library, "libnss-wrapper is missing; run 'python tests/system_packages.py'"
    return ("unshare", "--mount", "sh", "-c", HIDDEN, str(library))


def refused(*command: str, **settings: str) -> str:
    """The sentence of a start within that command."""
    command = (*command, sys.executable, "-m", "mockpay", "serve")
    done = subprocess.run(
        command, env=environment(MOCKPAY_PORT="0", **settings), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("mockpay: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@as_root
@pytest.mark.parametrize("long", [False, True])
def test_it_serves_a_payment_and_starts_again(own_folder: Path, long: bool) -> None:
    """Also where the folder's path is too long for a socket."""
    data_dir = own_folder / "a" / ("b" * 100 if long else "b")
    for number in ("first", "second"):
        gateway = UnknownsGateway(own_folder / "log", MOCKPAY_DATA_DIR=str(data_dir))
        with running(gateway):
            gateway.register(f"{number}@example.com")
            gateway.pay(None)
            assert {process.uids().real for process in database_processes(data_dir)} == {UNKNOWN.uid}
            assert gateway.stop() == 0
        assert database_processes(data_dir) == []


@as_root
def test_without_the_library_it_says_what_is_missing_and_the_ways_out(own_folder: Path) -> None:
    said = refused(*hidden_library(), *AS_UNKNOWN, MOCKPAY_DATA_DIR=str(own_folder / "data"))
    assert "This user (12345) has no entry in /etc/passwd" in said
    for way_out in ("libnss-wrapper", "MOCKPAY_DATABASE_URL", "run MockPay as a user that has one"):
        assert way_out in said


@as_root
@pytest.mark.usefixtures("own_folder")
def test_without_a_home_folder_it_asks_for_a_data_folder() -> None:
    said = refused(*AS_UNKNOWN)
    assert "MOCKPAY_DATA_DIR" in said
    assert "no home folder" in said
    assert "Can't use the data folder /.local/share/mockpay: Permission denied" in refused(*AS_UNKNOWN, "env", "HOME=/")


def test_what_is_said_of_such_a_user_does_not_depend_on_who_runs_the_tests(folder: Path) -> None:
    with pytest.raises(StartupError, match=r"This user .12345. has no entry in /etc/passwd, which .* needs; install"):
        initdb.make_files(programs_folder(), folder, UNKNOWN, "postgres", find_library=lambda: None)


def test_the_reason_of_an_initdb_that_fails_is_quoted_and_no_log_is_named_that_there_is_not(data_dir: Path) -> None:
    said = refused(*FILES_STAY_SMALL, MOCKPAY_DATA_DIR=str(data_dir))
    assert f"The embedded database in {data_dir} could not be made: " in said
    assert "File too large" in said
    assert "postgres.log" not in said


def test_initdb_is_quoted_if_it_says_no_more_than_how_it_ended() -> None:
    def reason(stderr: str) -> str:
        return initdb.reason_of(subprocess.CompletedProcess([], 127, "", stderr))

    assert reason("initdb: error: no room\nchild process exited\n") == "initdb: error: no room"
    assert reason("initdb: libfoo.so is missing\n\n") == "initdb: libfoo.so is missing"
    assert reason("") == "initdb ended with the code 127"
