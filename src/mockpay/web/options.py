"""What OPTIONS says a route allows."""

from litestar.enums import HttpMethod, ScopeType
from litestar.routes import HTTPRoute
from litestar.types import Message, Scope


async def name_every_method(message: Message, scope: Scope) -> None:
    """Litestar's own answer to OPTIONS knows the first handler of a path only: name the methods of all of them."""
    if (
        message["type"] != "http.response.start"
        or scope["type"] != ScopeType.HTTP
        or scope["method"] != HttpMethod.OPTIONS
    ):
        return
    template = scope.get("path_template")
    methods = {
        method
        for route in scope["litestar_app"].routes
        if isinstance(route, HTTPRoute) and route.path_format == template
        for method in route.methods
    }
    if methods:
        others = [(name, value) for name, value in message["headers"] if name != b"allow"]
        message["headers"] = [*others, (b"allow", ", ".join(sorted(methods)).encode())]
