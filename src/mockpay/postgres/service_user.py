"""PostgreSQL refuses to run as root. Where MockPay does, PostgreSQL runs as `nobody`, which must reach its files.

Rather than opening folders such as /root to everyone, the one right that is missing, to walk through, is granted
to that one user with a POSIX access control list.
"""

import errno
import os
import pwd
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mockpay.errors import StartupError

_XATTR: Final = "system.posix_acl_access"
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")  # tag, permissions, id
_VERSION: Final = 2
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID: Final = 0xFFFFFFFF
_WALK: Final = 0o1

Entries = dict[tuple[int, int], int]


@dataclass(frozen=True)
class ServiceUser:
    """Who runs PostgreSQL. `None` ids mean: whoever runs MockPay."""

    uid: int | None
    gid: int | None

    def process_options(self) -> dict[str, Any]:
        """For subprocess: become this user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, folder: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid)

    def let_through(self, path: Path) -> None:
        """Make `path`, a folder, and the folders above it walkable. Raises StartupError where that can't be done."""
        if self.uid is None:
            return
        for folder in (path, *path.parents):
            try:
                _grant_walk(folder, self.uid)
            except OSError as error:
                raise StartupError(
                    f"PostgreSQL can't run as root, and the user it runs as, nobody, can't enter {folder} "
                    f"({error.strerror}); run MockPay as an ordinary user, or 'chmod o+x {folder}'."
                ) from error


def choose_service_user() -> ServiceUser:
    """Raises StartupError if this is root and there is no `nobody`."""
    if os.geteuid() != 0:
        return ServiceUser(None, None)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise StartupError(
            "PostgreSQL can't run as root, and this system has no user 'nobody' for it; "
            "run MockPay as an ordinary user, or set MOCKPAY_DATABASE_URL."
        ) from error
    return ServiceUser(nobody.pw_uid, nobody.pw_gid)


def _grant_walk(folder: Path, uid: int) -> None:
    status = folder.stat()
    if status.st_uid == uid or status.st_mode & stat.S_IXOTH:
        return
    if not hasattr(os, "setxattr"):  # Linux has it
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    entries = _read_entries(folder, status.st_mode)
    mask = entries.get((_MASK, _NO_ID), entries[_GROUP_OBJ, _NO_ID])
    if entries.get((_USER, uid), 0) & mask & _WALK:
        return
    if not mask & _WALK:  # the mask has to open for one, and must not open for the others that it holds back
        entries |= {key: entries[key] & ~_WALK for key in entries if key[0] in (_USER, _GROUP_OBJ, _GROUP)}
    entries[_USER, uid] = entries.get((_USER, uid), 0) | _WALK
    entries[_MASK, _NO_ID] = mask | _WALK
    packed = b"".join(_ENTRY.pack(tag, permissions, id_) for (tag, id_), permissions in sorted(entries.items()))
    os.setxattr(folder, _XATTR, _HEADER.pack(_VERSION) + packed)


def _read_entries(folder: Path, mode: int) -> Entries:
    try:
        packed = os.getxattr(folder, _XATTR)
    except OSError:  # it has none: the mode says it all
        return {
            (_USER_OBJ, _NO_ID): mode >> 6 & 7,
            (_GROUP_OBJ, _NO_ID): mode >> 3 & 7,
            (_OTHER, _NO_ID): mode & 7,
        }
    return {(tag, id_): permissions for tag, permissions, id_ in _ENTRY.iter_unpack(packed[_HEADER.size :])}
