"""The place in a list from which its next page goes on. Pure.

A cursor gives nobody a right: whatever it says, a tenant sees its own rows only. So a checksum is enough, to tell a
cursor that was cut, mistyped or made up, or belongs to another list, from one of ours.
"""

import base64
import binascii
import hashlib
import struct
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

FIRST_ID: Final = UUID(int=0)
"""Below every id: where a walk in the order of ids begins."""
LAST_ID: Final = UUID(int=2**128 - 1)
"""Above every id: where a list that is read newest first begins."""

_VERSION: Final = 1
_LAYOUT: Final = struct.Struct(">Bq16s")
_CHECKSUM_BYTES: Final = 7
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Cursor(msgspec.Struct, frozen=True):
    """The last row that was shown. Lists are ordered newest first, by time and id, or by id alone."""

    created_at: datetime
    id: UUID

    def encode(self, of: str) -> str:
        """`of` names the list."""
        content = _LAYOUT.pack(_VERSION, (self.created_at - _EPOCH) // _MICROSECOND, self.id.bytes)
        return base64.urlsafe_b64encode(content + _checksum(of, content)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, of: str) -> "Cursor":
        """Raises ValueError if it is not what `encode` made for the same list, to the letter."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
            content, checksum = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
            version, microseconds, id_ = _LAYOUT.unpack(content)
            if (version, checksum) != (_VERSION, _checksum(of, content)):
                raise ValueError(text)
            cursor = cls(_EPOCH + microseconds * _MICROSECOND, UUID(bytes=id_))
            if cursor.encode(of) != text:  # base64 has spare bits: two texts for the same bytes
                raise ValueError(text)
        except (binascii.Error, struct.error, OverflowError, ValueError) as error:
            raise ValueError("must be the next_cursor of an earlier page of this list") from error
        return cursor


def _checksum(of: str, content: bytes) -> bytes:
    return hashlib.sha256(of.encode() + b"\0" + content).digest()[:_CHECKSUM_BYTES]
