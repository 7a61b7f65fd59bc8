"""What happens to the data folder, the port and the embedded server, however the last run ended."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from mockpay.errors import StartupError
from mockpay.postgres.embedded import _LOCK_SQL, SUPERUSER, EmbeddedPostgres
from mockpay.postgres.pool import connect
from tests.acceptance.conftest import Start
from tests.support.processes import Gateway, Program, database_processes, kill_database, run, wait_until

WAITS_FOR_LOCK = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def refused(folder: Path, **settings: str) -> str:
    """The sentence with which `serve` refuses to start."""
    done = run("serve", **{"MOCKPAY_DATA_DIR": str(folder), "MOCKPAY_PORT": "0"} | settings)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr.strip()


def one_sentence(text: str) -> bool:
    return text.startswith("mockpay: ") and "\n" not in text and text.endswith(".")


def test_a_stop_is_clean_and_a_second_start_has_the_data(start: Start, data_dir: Path) -> None:
    first = start(MOCKPAY_DATA_DIR=str(data_dir))
    tenant = first.register()
    payment_id = first.pay(None)
    assert first.client.get("/ready").status_code == 200
    assert (data_dir / "admin_key").read_text().strip()
    assert (data_dir / "admin_key").read_text().strip() not in first.output
    assert first.stop() == 0
    assert database_processes(data_dir) == []
    second = start()
    second.act_for(tenant)
    assert second.client.get(f"/api/payments/{payment_id}").json()["status"] == "success"
    assert second.stop(signal.SIGINT) == 0
    assert database_processes(data_dir) == []


def test_a_server_left_over_from_a_kill_is_taken_over(start: Start, data_dir: Path) -> None:
    first = start()
    tenant = first.register()
    payment_id = first.pay(None)
    first.kill()
    left_over = {process.pid for process in database_processes(data_dir)}
    assert left_over
    second = start()
    assert not left_over & {process.pid for process in database_processes(data_dir)}
    second.act_for(tenant)
    assert second.client.get(f"/api/payments/{payment_id}").json()["status"] == "success"
    assert second.stop(signal.SIGHUP) == 0
    assert database_processes(data_dir) == []


@pytest.mark.parametrize("stale", ["as it was", "the number belongs to another program", "torn"])
def test_a_stale_lock_file_of_the_server_is_no_obstacle(start: Start, data_dir: Path, stale: str) -> None:
    first = start()
    tenant = first.register()
    first.kill()
    kill_database(data_dir)
    files = [data_dir / "postgres" / name for name in ("postmaster.pid", ".s.PGSQL.5432.lock")]
    for file in files if stale != "as it was" else ():
        lines = file.read_text().splitlines()
        another = "\n".join([str(os.getppid()), *lines[1:]]) + "\n"
        file.write_text("" if stale == "torn" else another)
    second = start()
    second.act_for(tenant)
    assert second.client.get("/api/auth/me").status_code == 200


def test_a_half_made_database_is_made_anew(start: Start, data_dir: Path) -> None:
    (data_dir / "postgres.new" / "base").mkdir(parents=True)
    assert start().client.get("/ready").status_code == 200


def test_a_second_serve_on_the_same_folder_is_refused(start: Start, data_dir: Path) -> None:
    first = start()
    sentence = refused(data_dir)
    assert one_sentence(sentence)
    assert str(first.process.pid) in sentence
    assert "MOCKPAY_DATA_DIR" in sentence
    assert first.client.get("/ready").status_code == 200


def test_a_taken_port_is_refused_before_anything_is_started(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        sentence = refused(data_dir, MOCKPAY_PORT=port)
    assert one_sentence(sentence)
    assert port in sentence
    assert "MOCKPAY_PORT" in sentence
    assert not data_dir.exists()


@pytest.mark.parametrize(("settings", "named"), [
    ({"MOCKPAY_PORT": "many"}, "MOCKPAY_PORT"), ({"MOCKPAY_PORT": "70000"}, "MOCKPAY_PORT"),
    ({"MOCKPAY_ENV": "staging"}, "MOCKPAY_ENV"), ({"MOCKPAY_WEBHOOK_ATTEMPTS": "0"}, "MOCKPAY_WEBHOOK_ATTEMPTS"),
    ({"MOCKPAY_WEBHOOK_TIMEOUT_SECONDS": "nan"}, "MOCKPAY_WEBHOOK_TIMEOUT_SECONDS"),
    ({"MOCKPAY_HOST": "no.such.host.invalid"}, "MOCKPAY_HOST"), ({"MOCKPAY_ENV": "production"}, "MOCKPAY_DATABASE_URL"),
    ({"MOCKPAY_DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/d"}, "MOCKPAY_DATABASE_URL"),
    ({"MOCKPAY_DATABASE_URL": "postgresql://u:hunter2/x@127.0.0.1/d"}, "MOCKPAY_DATABASE_URL"),
    ({"MOCKPAY_ADMIN_KEY": "hunter2"}, "MOCKPAY_ADMIN_KEY"),
])  # fmt: skip
def test_a_wrong_setting_is_named(data_dir: Path, settings: dict[str, str], named: str) -> None:
    text = refused(data_dir, **settings)
    assert named in text
    assert "hunter2" not in text


def test_a_data_folder_that_is_a_file(data_dir: Path) -> None:
    data_dir.write_text("")
    sentence = refused(data_dir)
    assert one_sentence(sentence)
    assert str(data_dir) in sentence


def test_a_database_of_another_major_version_is_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("17\n")
    sentence = refused(data_dir)
    assert one_sentence(sentence)
    assert "PostgreSQL 17" in sentence


@pytest.mark.parametrize("megabytes", [1, 20])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk that is small enough to fill")
def test_a_full_disk_is_said_and_recovered_from(start: Start, folder: Path, megabytes: int) -> None:
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk], check=True)
    try:
        sentence = refused(disk)
        assert one_sentence(sentence)
        assert "disk is full" in sentence or "No space left" in sentence
        assert "free some space" in sentence
        subprocess.run(["mount", "-o", "remount,size=500m", disk], check=True)
        gateway = start(MOCKPAY_DATA_DIR=str(disk))
        assert gateway.client.get("/ready").status_code == 200
        gateway.stop()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_folder_with_a_long_name_inside_folders_that_are_private(start: Start, folder: Path) -> None:
    data_dir = folder / ("a" * 100) / ("b" * 100) / "data"
    data_dir.parent.mkdir(parents=True, mode=0o700)
    data_dir.parent.parent.chmod(0o700)
    gateway = start(MOCKPAY_DATA_DIR=str(data_dir))
    gateway.register()
    assert data_dir.parent.stat().st_mode & 0o007 == 0
    assert gateway.stop() == 0


def test_an_embedded_server_that_dies_is_started_again(start: Start, data_dir: Path) -> None:
    gateway = start()
    gateway.register()
    kill_database(data_dir)
    wait_until(lambda: gateway.client.get("/ready").status_code == 200 and "started again" in gateway.output)
    gateway.pay(None)
    assert gateway.stop() == 0


@pytest.mark.parametrize("kills", [1, 1000])
def test_a_database_that_is_killed_while_it_starts(used_data_dir: Path, data_dir: Path, kills: int) -> None:
    """It is started again; but if that goes on, the start is given up with a sentence."""
    killed: list[psutil.Process] = []

    def kill() -> bool:
        """Between two looks whether it is ready. Whether to give up: no."""
        for process in database_processes(data_dir) if len(killed) < kills else ():
            process.kill()  # and leave it to its parent to learn of that
            killed.append(process)
        return False

    postgres = launched(used_data_dir, data_dir)
    if kills == 1:
        postgres.wait_until_ready(kill)
        postgres.stop()
    else:
        with pytest.raises(StartupError, match="was killed again and again"):
            postgres.wait_until_ready(kill)
    assert killed
    # The first of them was killed, and the others end by themselves when they learn of that.
    wait_until(lambda: not database_processes(data_dir))


def launched(used_data_dir: Path, data_dir: Path) -> EmbeddedPostgres:
    subprocess.run(["cp", "-a", used_data_dir, data_dir], check=True)
    postgres = EmbeddedPostgres(data_dir)
    postgres.launch()
    return postgres


def test_several_server_processes(start: Start, data_dir: Path) -> None:
    """Whichever of them answers a scrape answers for both."""
    gateway = start(MOCKPAY_WORKERS="2")
    gateway.register()
    gateway.pay(None)
    for seen in range(20):
        with httpx.Client(base_url=gateway.client.base_url, trust_env=False) as client:  # a new connection each
            text = client.get("/metrics").text
        name = "mockpay_http_request_duration_seconds_count"
        assert f'{name}{{method="POST",route="/api/payments",status="201"}} 1.0' in text
        assert seen == 0 or f'{name}{{method="GET",route="/metrics",status="200"}} {seen}.0' in text
    assert gateway.stop() == 0
    assert database_processes(data_dir) == []


def test_servers_do_not_outlive_a_killed_parent(start: Start) -> None:
    gateway = start(MOCKPAY_WORKERS="2")
    gateway.kill()

    def is_refused() -> bool:
        try:
            httpx.get(gateway.client.base_url.join("/health"), trust_env=False)
        except httpx.ConnectError:
            return True
        except httpx.TransportError:  # it was accepted by one that ended before it answered
            return False
        return False

    wait_until(is_refused)


def test_a_killed_server_process_is_replaced_and_nobody_is_refused(start: Start) -> None:
    gateway = start(MOCKPAY_WORKERS="2", MOCKPAY_RATE_LIMIT_TIER="unlimited")
    gateway.register()
    wait_until(lambda: len(listening(gateway)) == 2)
    before = listening(gateway)
    next(iter(before)).kill()
    for _ in range(30):  # each by a connection of its own; some are given to the one that is gone
        answer = httpx.get(
            gateway.client.base_url.join("/api/payments"), headers=gateway.client.headers, trust_env=False, timeout=10
        )
        assert answer.status_code == 200
    wait_until(lambda: len(listening(gateway)) == 2)
    assert listening(gateway) != before
    assert gateway.stop() == 0


def listening(gateway: Gateway) -> set[psutil.Process]:
    """The server processes, each of which listens on a socket of its own."""
    children = psutil.Process(gateway.process.pid).children()
    port = gateway.client.base_url.port
    found = set()
    for child in children:
        with contextlib.suppress(psutil.Error):
            sockets = [each for each in child.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
            if any(each.laddr.port == port for each in sockets):
                found.add(child)
    return found


def test_a_stop_during_the_start_leaves_nothing_behind(folder: Path, data_dir: Path) -> None:
    program = Program(folder / "log", "serve", MOCKPAY_DATA_DIR=str(data_dir), MOCKPAY_PORT="0")
    wait_until(lambda: bool(database_processes(data_dir)))
    assert program.stop() == 0
    assert database_processes(data_dir) == []
    assert "Traceback" not in program.output


def test_commands_join_a_running_gateway_or_start_the_database_themselves(start: Start, data_dir: Path) -> None:
    gateway = start()
    gateway.register()
    gateway.pay(None)
    folder = {"MOCKPAY_DATA_DIR": str(data_dir)}
    assert run("audit", "verify", **folder).stdout == "1 payments, 2 audit entries: intact\n"
    assert gateway.stop() == 0
    assert run("audit", "verify", **folder).stdout == "1 payments, 2 audit entries: intact\n"
    assert run("migrate", **folder).stdout == "The database is up to date.\n"
    assert database_processes(data_dir) == []
    shutil.rmtree(data_dir)
    assert "run 'mockpay migrate' first" in run("audit", "verify", **folder).stderr


def test_commands_join_a_gateway_of_a_version_that_had_one_role(start: Start, data_dir: Path) -> None:
    gateway = start()
    database = EmbeddedPostgres(data_dir)
    assert database.join()
    asyncio.run(execute(database.url(SUPERUSER), "ALTER ROLE mockpay_application RENAME TO unknown_then"))
    asyncio.run(check_only_one_at_a_time_makes_roles(database.url(SUPERUSER, "postgres"), data_dir))
    folder = {"MOCKPAY_DATA_DIR": str(data_dir)}
    assert (
        "or this role was given no rights in it; run 'mockpay migrate' first" in run("audit", "verify", **folder).stderr
    )
    assert run("migrate", **folder).stdout == "The database is up to date.\n"
    assert run("audit", "verify", **folder).stdout == "0 payments, 0 audit entries: intact\n"
    assert gateway.stop() == 0


async def check_only_one_at_a_time_makes_roles(url: str, data_dir: Path) -> None:
    """Two would get in each other's way, and one of them may be the gateway, which still starts."""
    connection = await connect(url)
    await connection.execute(_LOCK_SQL)
    joining = asyncio.create_task(asyncio.to_thread(EmbeddedPostgres(data_dir).join))
    async with asyncio.timeout(10):
        while not await connection.fetchval(WAITS_FOR_LOCK):  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.01)
    assert not joining.done()
    await connection.close()
    assert await joining


async def execute(url: str, statement: str) -> None:
    connection = await connect(url)
    await connection.execute(statement)
    await connection.close()


def test_verify_demo_shows_what_is_accepted_and_what_is_rejected() -> None:
    done = run("verify-demo")
    assert done.returncode == 0
    rows = [line for line in done.stdout.splitlines() if "accepted" in line or "rejected" in line]
    assert [row.count("accepted") for row in rows] == [2, 0, 0, 0, 0]
    assert [row.count("rejected") for row in rows] == [0, 2, 2, 2, 2]
