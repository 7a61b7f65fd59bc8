"""A tenant: one developer or team, with its own key, secrets, payments and limits. Pure."""

import hashlib
import hmac
import re
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final
from uuid import UUID

import msgspec
from email_validator import EmailNotValidError, validate_email

from mockpay.settings import RateLimitTier
from mockpay.webhooks.address import WebhookUrl

_API_KEY = re.compile(r"[0-9a-f]{64}")
EMAIL_LENGTH_MAX: Final = 254
"""That of the standard. Asked before the library is, which goes through each character of what it then refuses."""


class Email(str):
    """A syntactically valid address, its domain in lower case. The .test domain is welcome here."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {
        "type": "string",
        "format": "email",
        "max_length": EMAIL_LENGTH_MAX,
        "examples": ["dev@example.com"],
    }

    @classmethod
    def parse(cls, raw: object) -> "Email":
        if not isinstance(raw, str):
            raise ValueError("must be a string: an e-mail address")
        if len(raw) > EMAIL_LENGTH_MAX:
            raise ValueError(f"must be an e-mail address of at most {EMAIL_LENGTH_MAX} characters")
        try:
            valid = validate_email(raw, check_deliverability=False, test_environment=True)
        except EmailNotValidError as error:
            raise ValueError(f"must be an e-mail address: {error}") from error
        return cls(valid.normalized)


class Registration(msgspec.Struct, frozen=True):
    """The body of POST /api/auth/register."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    email: Email


class Preferences(msgspec.Struct, frozen=True):
    """The body of PATCH /api/auth/me. `null` takes the default URL away."""

    webhook_url: WebhookUrl | None


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    email: str
    rate_limit_tier: RateLimitTier
    webhook_url: str | None
    created_at: datetime
    has_faults: bool = False


def hash_api_key(api_key: str) -> bytes:
    """What is stored. Plain SHA-256: a key of 256 random bits needs no slow hash."""
    return hashlib.sha256(api_key.encode()).digest()


def bearer_token(authorization: str | None) -> str | None:
    """What an Authorization header presents, or None if it is no Bearer header."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def is_api_key(token: str | None) -> bool:
    """Whether it has the form of one: anything else need not be looked up."""
    return token is not None and _API_KEY.fullmatch(token) is not None


def is_admin_key(admin_key: str | None, token: str | None) -> bool:
    """Compared by their hashes, in constant time: neither the key nor its length can be guessed piece by piece."""
    if admin_key is None or token is None:
        return False
    return hmac.compare_digest(hash_api_key(admin_key), hash_api_key(token))
