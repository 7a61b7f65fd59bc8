"""The file of a checkpoint, and the file of the key that signs it. Every OSError becomes a sentence: StartupError."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mockpay.admin_key import read_or_make
from mockpay.audit.checkpoint import Covered, Summary, read_lines, read_summary
from mockpay.errors import StartupError
from mockpay.settings import Settings

KEY_FILE_NAME: Final = "audit_key"
KEY_BYTES_MIN: Final = 32


def signing_key(settings: Settings, key_file: Path | None) -> bytes:
    """Made at the first use if none is named. In production one must be: it may not lie where it can be replaced."""
    path = _key_path(settings, key_file)
    if key_file is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            read_or_make(path)
        except OSError as error:
            raise StartupError(f"Can't keep a key in {path}: {error.strerror}; name one with --key-file.") from error
    return _read_key(path)


def checking_key(settings: Settings, key_file: Path | None) -> bytes:
    """Never made: a new one could only say that every checkpoint is wrong."""
    return _read_key(_key_path(settings, key_file))


@contextmanager
def new_file(path: Path) -> Iterator[Callable[[bytes], object]]:
    """A file that was not there before: a checkpoint never replaces an older one. Removed again on an error."""
    try:
        with path.open("xb") as file:
            try:
                yield file.write
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError as error:
        raise StartupError(f"{path} exists already, and a checkpoint is never overwritten; name a new file.") from error
    except OSError as error:
        raise StartupError(f"Can't write the checkpoint {path}: {error.strerror}.") from error


def summary_in(path: Path, key: bytes) -> Summary:
    with _opened(path) as lines:
        return read_summary(lines, key)


def covered_in(path: Path, summary: Summary) -> Iterator[Covered]:
    with _opened(path) as lines:
        yield from read_lines(lines, summary)


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[bytes]]:
    try:
        with path.open("rb") as file:
            yield iter(file)
    except OSError as error:
        raise StartupError(f"Can't read the checkpoint {path}: {error.strerror}.") from error


def _key_path(settings: Settings, key_file: Path | None) -> Path:
    if key_file is None and settings.is_production:
        raise StartupError("In production --key-file must name the file of the key that signs checkpoints.")
    return key_file or settings.data_folder / KEY_FILE_NAME


def _read_key(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise StartupError(
            f"Can't read the key {path}: {error.strerror}; name with --key-file the one that signs checkpoints."
        ) from error
    if len(key) < KEY_BYTES_MIN:
        raise StartupError(
            f"The key in {path} must be at least {KEY_BYTES_MIN} characters long; 'openssl rand -hex 32' makes one."
        )
    return key
