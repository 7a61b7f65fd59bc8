"""The form of a checkpoint: what was signed is read, and nothing else."""

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockpay.audit.checkpoint import Covered, Tally, line_of, read_lines, read_summary
from mockpay.audit.checkpoint_file import checking_key, covered_in, new_file, signing_key, summary_in
from mockpay.errors import StartupError
from mockpay.settings import Settings
from tests.support.fakes import START

KEY = b"k" * 32
COVERED = [Covered(UUID(int=1), UUID(int=number), number, f"{number:064x}") for number in (2, 3, 4)]


def checkpoint() -> list[bytes]:
    tally = Tally()
    lines = [line_of(covered) for covered in COVERED]
    for covered, line in zip(COVERED, lines, strict=True):
        tally.add(line, covered)
    return [*lines, line_of(tally.summary(START, KEY))]


def test_what_was_signed_is_read_again() -> None:
    summary = read_summary(checkpoint(), KEY)
    assert (summary.payments, summary.entries, summary.created_at) == (3, 9, "2026-01-31T12:00:00.123456Z")
    assert list(read_lines(checkpoint(), summary)) == COVERED


def test_root_hash_and_signature_can_be_recomputed_by_hand() -> None:
    *lines, last = checkpoint()
    summary = json.loads(last)
    assert summary["root_hash"] == hashlib.sha256(b"".join(lines)).hexdigest()
    signed = f'["mockpay-audit-checkpoint-1","{summary["created_at"]}",3,9,"{summary["root_hash"]}"]'
    assert summary["signature"] == hmac.new(KEY, signed.encode(), "sha256").hexdigest()


def test_the_form_never_changes() -> None:
    """A checkpoint that somebody kept must be read by every later version."""
    *_, last = checkpoint()
    assert json.loads(last)["signature"] == "be8694fce1686070b617ff11adc3e53da6f6b9acc8e203d9a9da2876b7eebb04"


@given(st.data())
def test_no_edited_byte_is_accepted(data: st.DataObject) -> None:
    whole = bytearray(b"".join(checkpoint()))
    # The last line feed is no part of what is signed.
    place = data.draw(st.integers(0, len(whole) - 2))
    whole[place] = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    with pytest.raises(StartupError, match="checkpoint"):
        read_summary(bytes(whole).splitlines(keepends=True), KEY)


@pytest.mark.parametrize(("edit", "sentence"), [
    (lambda lines: lines[:-1], "cut off"),
    (lambda lines: [], "cut off"),
    (lambda lines: lines[1:], "edited"),
    (lambda lines: [lines[1], lines[0], *lines[2:]], "edited"),
    (lambda lines: [*lines, lines[0]], "edited"),
    (lambda lines: [b"PNG\xff\n"], "no checkpoint"),
    (lambda lines: [b"{}\n"], "no checkpoint"),
    (lambda lines: [*lines[:-1], lines[-1].replace(b"checkpoint-1", b"checkpoint-2")], "format"),
])  # fmt: skip
def test_what_is_wrong_is_said(edit: Callable[[list[bytes]], list[bytes]], sentence: str) -> None:
    with pytest.raises(StartupError, match=sentence):
        read_summary(edit(checkpoint()), KEY)


def test_another_key() -> None:
    with pytest.raises(StartupError, match="not its key"):
        read_summary(checkpoint(), b"x" * 32)


def test_a_file_that_changes_between_the_two_times_it_is_read() -> None:
    summary = read_summary(checkpoint(), KEY)
    with pytest.raises(StartupError, match="changed while"):
        list(read_lines(checkpoint()[1:], summary))


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.jsonl"
    with new_file(path) as write:
        for line in checkpoint():
            write(line)
    summary = summary_in(path, KEY)
    assert list(covered_in(path, summary)) == COVERED
    with pytest.raises(StartupError, match="exists already"), new_file(path):
        pass
    assert path.exists()


def test_files_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"Can.t read the checkpoint .*nowhere"):
        summary_in(tmp_path / "nowhere", KEY)
    with (
        pytest.raises(StartupError, match=r"Can.t write the checkpoint .*nowhere"),
        new_file(tmp_path / "nowhere" / "x"),
    ):
        pass


def test_a_checkpoint_that_was_not_finished_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cut off"), new_file(tmp_path / "x") as write:
        write(read_summary([], KEY).format.encode())
    assert list(tmp_path.iterdir()) == []


def test_in_development_a_key_is_made_to_sign_and_never_to_check(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    with pytest.raises(StartupError, match="--key-file"):
        checking_key(settings, None)
    key = signing_key(settings, None)
    assert len(key) == 64
    assert key == signing_key(settings, None) == checking_key(settings, None)
    assert (tmp_path / "data" / "audit_key").stat().st_mode & 0o777 == 0o600


def test_in_production_the_key_must_be_named(tmp_path: Path) -> None:
    settings = Settings(env="production", database_url="postgresql://h/d", data_dir=tmp_path)
    for key_of in (signing_key, checking_key):
        with pytest.raises(StartupError, match="--key-file"):
            key_of(settings, None)
        (tmp_path / "key").write_text("a" * 40 + "\n")
        assert key_of(settings, tmp_path / "key") == b"a" * 40
    assert not (tmp_path / "audit_key").exists()


def test_a_key_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    with pytest.raises(StartupError, match="at least 32") as raised:
        checking_key(Settings(), tmp_path / "key")
    assert "secret" not in str(raised.value)
