"""The key of the admin routes: set in production, made and kept in the data folder in development."""

import secrets
from pathlib import Path

from mockpay.errors import StartupError
from mockpay.settings import Settings

FILE_NAME = "admin_key"


def ensure_admin_key(settings: Settings) -> tuple[str, str]:
    """The key, and where it is to be found. Raises StartupError if the folder can't be written."""
    if settings.admin_key:
        return settings.admin_key, "MOCKPAY_ADMIN_KEY"
    path = settings.data_folder / FILE_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return read_or_make(path), str(path)
    except OSError as error:
        raise StartupError(
            f"Can't keep the admin key in {path}: {error.strerror}; set MOCKPAY_ADMIN_KEY or MOCKPAY_DATA_DIR."
        ) from error


def read_or_make(path: Path) -> str:
    """A key that is kept in a file. Made at the first use, for its owner only. Raises OSError."""
    kept = path.read_text().strip() if path.exists() else ""
    if kept:
        return kept
    key = secrets.token_hex(32)
    path.touch(mode=0o600)
    path.write_text(key + "\n")
    return key
