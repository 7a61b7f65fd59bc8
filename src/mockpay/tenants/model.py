"""A tenant: one developer or team, with its own key, secrets, payments and limits. Pure."""

import hashlib
import re
from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

import msgspec
from email_validator import EmailNotValidError, validate_email

_API_KEY = re.compile(r"[0-9a-f]{64}")


class Email(str):
    """A syntactically valid address, its domain in lower case. The .test domain is welcome here."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "email", "examples": ["dev@example.com"]}

    @classmethod
    def parse(cls, raw: object) -> "Email":
        if not isinstance(raw, str):
            raise ValueError("must be a string: an e-mail address")
        try:
            valid = validate_email(raw, check_deliverability=False, test_environment=True)
        except EmailNotValidError as error:
            raise ValueError(f"must be an e-mail address: {error}") from error
        return cls(valid.normalized)


class Registration(msgspec.Struct, frozen=True):
    """The body of POST /api/auth/register."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    email: Email


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    email: str
    rate_limit_tier: str
    webhook_url: str | None
    created_at: datetime


def hash_api_key(api_key: str) -> bytes:
    """What is stored. Plain SHA-256: a key of 256 random bits needs no slow hash."""
    return hashlib.sha256(api_key.encode()).digest()


def bearer_key(authorization: str | None) -> str | None:
    """The API key of an Authorization header, or None if there is no well-formed one."""
    scheme, _, key = (authorization or "").strip().partition(" ")
    key = key.strip()
    return key if scheme.lower() == "bearer" and _API_KEY.fullmatch(key) else None
