"""Settings and start: a wrong value stops with one sentence that names the setting, and quotes no secret."""

import io
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import structlog

from mockpay.admin_key import ensure_admin_key
from mockpay.cli import app
from mockpay.database_access import check_production, external_database
from mockpay.errors import StartupError
from mockpay.logs import configure_logging, redact
from mockpay.postgres.migrate import Migration, bundled_migrations, pending
from mockpay.settings import Settings, check, environment_name
from mockpay.spelling import as_typed, warnings_of


@pytest.mark.parametrize(("changes", "name"), [
    ({"env": "production"}, "MOCKPAY_DATABASE_URL"),
    ({"env": "production", "database_url": "postgresql://h/d"}, "MOCKPAY_ADMIN_KEY"),
])  # fmt: skip
def test_production_needs_what_must_not_be_guessed(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(StartupError, match=name):
        check_production(Settings(**changes), needs_admin_key=True)


def test_production_with_both(tmp_path: Path) -> None:
    settings = Settings(env="production", database_url="postgresql://h/d", admin_key="k" * 16, data_dir=tmp_path)
    check_production(settings, needs_admin_key=True)
    assert ensure_admin_key(settings) == ("k" * 16, "MOCKPAY_ADMIN_KEY")
    assert external_database(settings, "api") == "postgresql://h/d"


@pytest.mark.parametrize(("changes", "name"), [
    ({"database_url": "mysql://u:hunter2@h/d"}, "MOCKPAY_DATABASE_URL"), ({"admin_key": "hunter2"}, "MOCKPAY_ADMIN_KEY"),
    ({"admin_key": "hunter2 hunter2 hunter2"}, "MOCKPAY_ADMIN_KEY"), ({"admin_key": "ü" * 20}, "MOCKPAY_ADMIN_KEY"),
    ({"cors_origins": "*, shop.example"}, "MOCKPAY_CORS_ORIGINS"), ({"cors_origins": "https://h/p"}, "MOCKPAY_CORS_ORIGINS"),
    ({"trusted_proxies": "10.0.0.1, proxy.example"}, "MOCKPAY_TRUSTED_PROXIES"),
])  # fmt: skip
def test_a_wrong_setting_is_named_and_no_secret_quoted(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(StartupError, match=name) as raised:
        check(Settings(**changes))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("flag", ["--concurrency", "--webhook-concurrency"])
def test_the_concurrency_of_a_worker_has_a_short_name(flag: str) -> None:
    bound = app.parse_args(["worker", flag, "7"])[1]
    assert bound.arguments["settings"].webhook_concurrency == 7


@pytest.mark.parametrize("command", ["serve", "api"])
def test_the_limits_are_lifted_by_a_flag(command: str) -> None:
    assert app.parse_args([command, "--unlimited"])[1].arguments["settings"].unlimited is True
    assert not Settings().unlimited


@pytest.mark.parametrize(("name", "nearest"), [
    ("MOCKPAY_WEBHOOK_ATEMPTS", "did you mean MOCKPAY_WEBHOOK_ATTEMPTS?"), ("MOCKPAY_PORTS", "did you mean MOCKPAY_PORT?"),
    ("MOCKPAY_ADMINKEY", "did you mean MOCKPAY_ADMIN_KEY?"), ("MOCKPAY_QQQQQ", "docs/settings.md lists all there are."),
])  # fmt: skip
def test_a_variable_that_is_no_setting_is_warned_of(name: str, nearest: str) -> None:
    [warning] = warnings_of([name, "PATH", "MOCKPAYX"])
    assert warning == f"{name} is no setting of MockPay and is ignored; {nearest}"


def test_what_is_read_is_not_warned_of() -> None:
    """Settings, what the audit's commands take, and what a cluster sets by itself for a service of that name."""
    settings = [environment_name(field.name) for field in fields(Settings)]
    others = [
        "MOCKPAY_CONCURRENCY", "MOCKPAY_KEY_FILE", "MOCKPAY_SERVICE_HOST", "MOCKPAY_API_SERVICE_PORT_HTTP",
        "MOCKPAY_PORT_3000_TCP", "MOCKPAY_PORT_3000_TCP_ADDR", "MOCKPAY_API_PORT",
    ]  # fmt: skip
    assert warnings_of([*settings, *others]) == []


@pytest.mark.parametrize(("arguments", "said"), [
    (["serve"], "MOCKPAY_ADMIN_KEY is short; see MOCKPAY_ENV."),
    (["serve", "--admin-key", "short"], "--admin-key is short; see MOCKPAY_ENV."),
    (["serve", "--admin_key=short", "--env=production"], "--admin-key is short; see --env."),
    (["serve", "--admin-key-file", "x"], "MOCKPAY_ADMIN_KEY is short; see MOCKPAY_ENV."),
])  # fmt: skip
def test_an_error_names_the_flag_that_was_typed(arguments: list[str], said: str) -> None:
    assert as_typed("MOCKPAY_ADMIN_KEY is short; see MOCKPAY_ENV.", arguments) == said


def test_an_error_names_the_short_flag_if_that_was_typed() -> None:
    assert as_typed("MOCKPAY_WEBHOOK_CONCURRENCY is off.", ["--concurrency", "7"]) == "--concurrency is off."


def test_commands_for_an_external_database_say_so() -> None:
    with pytest.raises(StartupError, match="'mockpay worker' needs MOCKPAY_DATABASE_URL"):
        external_database(Settings(), "worker")


def test_the_development_admin_key_is_made_once_and_private(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    key, place = ensure_admin_key(settings)
    assert len(bytes.fromhex(key)) == 32
    assert Path(place).stat().st_mode & 0o777 == 0o600
    assert ensure_admin_key(settings) == (key, place)


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="MOCKPAY_DATA_DIR"):
        ensure_admin_key(Settings(data_dir=tmp_path / "file"))


def test_secrets_are_blanked_by_their_names() -> None:
    event = {
        "event": "x",
        "api_key": "1",
        "webhook_secret": "2",
        "Authorization": "3",
        "database_url": "4",
        "path": "/",
    }
    assert redact(None, "info", event) == {
        "event": "x", "api_key": "[redacted]", "webhook_secret": "[redacted]", "Authorization": "[redacted]",
        "database_url": "[redacted]", "path": "/",
    }  # fmt: skip


@pytest.fixture
def root_logger() -> Any:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = before
    configure_logging(json_lines=False, level="error")


def test_logs_are_json_in_production(root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    import json
    import sys

    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    configure_logging(json_lines=True, level="info")
    structlog.stdlib.get_logger("test").info("hello", api_key="hunter2", number=1)
    logging.getLogger("library").warning("plain %s", "text")
    first, second = map(json.loads, output.getvalue().splitlines())
    assert (first["event"], first["api_key"], first["number"], first["level"]) == ("hello", "[redacted]", 1, "info")
    assert (second["event"], second["logger"]) == ("plain text", "library")


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.version for migration in bundled_migrations()] == list(range(1, len(bundled_migrations()) + 1))


def test_pending_is_what_is_not_applied() -> None:
    one, two = Migration(1, "0001_a.sql", "SELECT 1"), Migration(2, "0002_b.sql", "SELECT 2")
    assert pending([one, two], {}) == [one, two]
    assert pending([one, two], {1: (one.name, one.checksum)}) == [two]
    with pytest.raises(StartupError, match="0001_a"):
        pending([one, two], {1: (one.name, "another checksum")})
    with pytest.raises(StartupError, match="0002_b"):
        pending([one], {1: (one.name, one.checksum), 2: (two.name, two.checksum)})
