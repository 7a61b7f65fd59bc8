"""`mockpay verify-demo`: what signature verification accepts, and what it must reject, shown on real bytes."""

import hashlib
from typing import Final

import msgspec

from mockpay.webhooks.signing import sign, verify

SECRET: Final = hashlib.sha256(b"a webhook secret for this demonstration").hexdigest()
WRONG_SECRET: Final = hashlib.sha256(b"somebody else's secret").hexdigest()
BODY: Final = b'{"event":"payment.success","payment_id":"01a208df-c0d9-756f-80ef-891a5ca24f1b","amount":49.99}'
TAMPERED_BODY: Final = BODY.replace(b"49.99", b"4.99")
OTHER_BODY: Final = BODY.replace(b"payment.success", b"payment.refunded")


class Case(msgspec.Struct, frozen=True):
    name: str
    body: bytes
    signature: str
    expected: bool

    @property
    def accepted(self) -> bool:
        """What `verify` says, now."""
        return verify(self.body, self.signature, SECRET)


def cases() -> list[Case]:
    """The valid one first; each of the others differs from it in one thing."""
    valid = sign(BODY, SECRET)
    return [
        Case("valid signature", BODY, valid, expected=True),
        Case("tampered body", TAMPERED_BODY, valid, expected=False),
        Case("wrong secret", BODY, sign(BODY, WRONG_SECRET), expected=False),
        Case("empty signature", BODY, "", expected=False),
        Case("signature of another body", BODY, sign(OTHER_BODY, SECRET), expected=False),
    ]
