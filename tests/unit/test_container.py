"""The files that make a container agree with each other and with the settings. No engine is needed for that."""

import fnmatch
import re
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # the library leaves it untyped

from mockpay.postgres.embedded import APPLICATION, DATABASE, MAJOR, OWNER
from mockpay.settings import Settings, environment_name

ROOT = Path(__file__).parents[2]
NOT_FOR_WHO_RUNS_IT = {"data_dir", "database_url", "migration_database_url", "worker_metrics_port"}
"""What the image and compose.yaml set themselves, and what is for a worker that runs alone."""

NEEDED = {environment_name(field.name) for field in fields(Settings) if field.name not in NOT_FOR_WHO_RUNS_IT}
REFERENCE = re.compile(r"\$\{(\w+):-([^}]*)\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def examples() -> dict[str, str]:
    """What .env.example shows of each variable, which is its default."""
    return dict(re.findall(r"^# ([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))


def test_what_a_container_needs_can_be_set_and_is_explained(compose: dict[str, Any], examples: dict[str, str]) -> None:
    """A new setting has a line in both files, or is among those that are not for who runs the container."""
    assert {name for name in examples if name.startswith("MOCKPAY_")} == NEEDED
    text = (ROOT / ".env.example").read_text()
    for name in examples:
        assert re.search(rf"^# \w.*\n(# .*\n)*# {name}=", text, re.MULTILINE), f"{name} has no comment above it"
    assert not re.search(r"^\s*[^#\s]", text, re.MULTILINE), "as it is it changes nothing"
    passed_on = {name for name, _ in REFERENCE.findall((ROOT / "compose.yaml").read_text())}
    assert passed_on == set(examples), "what .env sets arrives"
    environment = compose["services"]["mockpay"]["environment"]
    assert set(environment) <= {environment_name(field.name) for field in fields(Settings)}


def test_the_defaults_that_are_shown_are_those_that_count(examples: dict[str, str]) -> None:
    settings = Settings()
    for field in fields(Settings):
        shown = examples.get(environment_name(field.name))
        if shown is not None:
            value = getattr(settings, field.name)
            spelled = str(value).lower() if isinstance(value, bool) else str(value)
            assert shown == ("" if value is None else spelled), field.name
    for name, default in REFERENCE.findall((ROOT / "compose.yaml").read_text()):
        assert default in ("", examples[name]), name


def test_a_setting_that_compose_passes_on_is_its_own(compose: dict[str, Any]) -> None:
    """And not another one's, by a slip of the hand. What is fixed inside is the address and the databases."""
    environment = compose["services"]["mockpay"]["environment"]
    own = {name: value for name, value in environment.items() if value == f"${{{name}:-}}"}
    assert set(environment) - set(own) == {
        "MOCKPAY_HOST", "MOCKPAY_PORT", "MOCKPAY_DATABASE_URL", "MOCKPAY_MIGRATION_DATABASE_URL",
    }  # fmt: skip
    assert compose["services"]["mockpay"]["ports"] == [
        f"${{MOCKPAY_HOST:-127.0.0.1}}:${{MOCKPAY_PORT:-{Settings().port}}}:{environment['MOCKPAY_PORT']}"
    ]
    for name, role in (("MOCKPAY_DATABASE_URL", APPLICATION), ("MOCKPAY_MIGRATION_DATABASE_URL", OWNER)):
        assert re.fullmatch(rf"postgresql://{role}:\S+@database:5432/{DATABASE}", environment[name])
        assert f"CREATE ROLE {role} LOGIN" in (ROOT / "container" / "make-roles.sh").read_text()


def test_the_database_beside_it_is_of_the_version_that_is_embedded(compose: dict[str, Any]) -> None:
    assert compose["services"]["database"]["image"] == f"postgres:{MAJOR}"


def test_the_builder_gets_what_the_image_is_made_of_and_no_more() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    let_through = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[0] == "*", "whatever is not named stays out"
    own_copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {source for sources in own_copies for source in sources.split()} == let_through
    assert all((ROOT / path).exists() for path in let_through)
    for path in (".git", ".venv", ".env", "tests", "benchmarks", "docs"):
        assert not any(fnmatch.fnmatch(path, pattern) for pattern in let_through)


def test_the_wheel_holds_all_that_the_program_is_made_of(tmp_path: Path) -> None:
    """Also what is no Python: migrations, scenarios. Elsewhere it is run from its source."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("mockpay/")}
    source = ROOT / "src"
    files = {str(path.relative_to(source)) for path in (source / "mockpay").rglob("*") if path.is_file()}
    assert held == {path for path in files if "__pycache__" not in path}
