"""Where a webhook may go. Outside development, never to this machine or into its private network.

A URL is checked when it is registered, for a clear error, and again when the connection is made, on the very address
that is connected to: a name may resolve differently by then (DNS rebinding).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final
from uuid import UUID

from aiohttp import AddrInfoType
from yarl import URL

from mockpay.errors import Fault, InvalidRequest
from mockpay.webhooks.resolver import Lookups

MAX_URL_LENGTH: Final = 2048
RESOLVE_TIMEOUT_SECONDS: Final = 5.0

# Private in effect, whatever their registration says: a metadata service, protocol assignments, documentation.
_NEVER_PUBLIC: Final = tuple(ipaddress.ip_network(text) for text in ("168.63.129.16/32", "192.0.0.0/24", "3fff::/20"))
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
"""All that IPv6 has of public addresses. Beside it lie forms that hold an IPv4 address, and what has no owner yet."""
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")
"""But for these, which a gateway turns into the IPv4 address at their end."""

Resolve = Callable[[UUID, str, int], Coroutine[Any, Any, list[str]]]
"""For a tenant, the addresses of a host and port. Raises OSError or UnicodeError if there are none."""


class AddressRefused(OSError):
    """The address is private, and this is not a development server. An OSError, since aiohttp expects one."""


class WebhookUrl(str):
    """An http or https URL that a webhook can be sent to."""

    __slots__ = ()
    json_schema: ClassVar[dict[str, Any]] = {
        "type": "string",
        "format": "uri",
        "max_length": MAX_URL_LENGTH,
        "examples": ["http://127.0.0.1:4000/webhooks"],
    }

    @classmethod
    def parse(cls, raw: object) -> "WebhookUrl":
        if not isinstance(raw, str):
            raise ValueError("must be a string: an http or https URL")
        if len(raw) > MAX_URL_LENGTH:
            raise ValueError(f"must be at most {MAX_URL_LENGTH} characters long")
        if not raw.isprintable() or " " in raw:
            raise ValueError("must not hold spaces or control characters")
        try:
            url = URL(raw)
            host, port = url.host, url.port
        except ValueError as error:
            raise ValueError("must be a valid URL") from error
        if url.scheme not in ("http", "https") or not host or not port:
            raise ValueError("must be an http or https URL with a host")
        if url.user is not None or url.password is not None:
            raise ValueError("must not hold a user name or password: it would end in logs")
        return cls(raw)


def receiver_host(url: str) -> str:
    """What a worker counts its concurrency by."""
    return f"{URL(url).host}:{URL(url).port}"


def is_public(address: str) -> bool:
    """Whether an IP address lies on the open internet. An IPv4 address inside an IPv6 one counts as itself."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if embedded is not None:
            return is_public(str(embedded))
        if ip in _TRANSLATED:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _GLOBAL_UNICAST:
            return False
    if any(ip in network for network in _NEVER_PUBLIC if network.version == ip.version):
        return False
    return ip.is_global and not ip.is_multicast


class AddressGuard:
    """`resolve` is how names are looked up when a URL is registered; by default with threads of this guard's own."""

    def __init__(self, *, allow_private: bool, resolve: Resolve | None = None) -> None:
        self._allow_private = allow_private
        self._resolve = resolve or Lookups().addresses

    async def problem_with(self, tenant_id: UUID, url: str | None) -> InvalidRequest | None:
        """Returns why this tenant can't register the `webhook_url`, or None.

        A name that does not resolve today may do so later.
        """
        if self._allow_private or url is None:
            return None
        target = URL(url)
        assert target.host is not None
        assert target.port is not None
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_SECONDS):
                addresses = await self._resolve(tenant_id, target.host, target.port)
        except (TimeoutError, OSError, UnicodeError):
            return None
        if all(map(is_public, addresses)):
            return None
        message = "must not lead to a private, loopback, link-local or metadata address (outside development mode)"
        return InvalidRequest([Fault("webhook_url", message)])

    def open_socket(self, address_info: AddrInfoType) -> socket.socket:
        """aiohttp calls this for each address it is about to connect to, however it came by it.

        Raises AddressRefused.
        """
        family, kind, protocol, _, address = address_info
        if not (self._allow_private or is_public(str(address[0]))):
            raise AddressRefused(f"{address[0]} is not a public address")
        return socket.socket(family, kind, protocol)
