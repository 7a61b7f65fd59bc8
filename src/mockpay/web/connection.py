"""Uvicorn's protocol with limits: by itself it waits for ever for the rest of a request, and keeps any head."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from mockpay.errors import ApiError, HeadTooLarge, MalformedHttp, RequestTimeout
from mockpay.web.asgi import raw_headers
from mockpay.web.error_handler import error_body
from mockpay.web.request_log import new_request_id

HEAD_BYTES_MAX: Final = 64 * 1024
AHEAD_MAX: Final = 100
"""Requests that a client may send before it has their answers. One read of the socket could bring ten thousand."""

TIMEOUT_AT_STOP_SECONDS: Final = 2.0
"""What is left of a client's time when the server stops: one that does not read must not hold that up."""

_VERSIONS: Final = ("1.0", "1.1")
"""The parser knows 0.9 and 2.0 as well, whose answers look otherwise."""

log = structlog.stdlib.get_logger("mockpay.http")


class Room:
    """For so many connections of this process. Beyond that one has to go that never brought a whole request, or whose
    request a fault holds, the oldest first: so those who only connect or wait shut out each other, and nobody else.
    """

    def __init__(self, connections_max: int) -> None:
        self.connections_max = connections_max
        self.giving_way: dict[LimitedProtocol, None] = {}
        """In the order in which they came, or began to be held. A newcomer is the last of them."""

    def enter(self, newest: "LimitedProtocol", count: int) -> None:
        self.giving_way[newest] = None
        if count > self.connections_max:
            oldest = next(iter(self.giving_way))
            self.leave(oldest)
            oldest.give_way()

    def hold(self, connection: "LimitedProtocol") -> None:
        self.leave(connection)
        self.giving_way[connection] = None

    def leave(self, connection: "LimitedProtocol") -> None:
        """It is no longer among those that have to go first. Does nothing if it was not."""
        self.giving_way.pop(connection, None)


class LimitedProtocol(HttpToolsProtocol):
    """Time is looked at by one timer for each connection, which asks whose turn it is: requests start and stop none."""

    def __init__(self, *, request_timeout_seconds: float, room: Room, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._timeout_seconds = request_timeout_seconds
        self._room = room
        self._is_new = True
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        """When the request began that is read now, or was read last."""
        self._is_whole = False
        self._is_refused = False
        self._is_parsing = False
        self._parsed: tuple[RequestResponseCycle, ASGI3Application] | None = None
        self._unread: tuple[RequestResponseCycle | None, float] | None = None
        """What the client did not take of its answers, by the last that was begun, and since when."""
        self._framing_bytes = 0
        """What came of this request and is no body: head, sizes of chunks, trailers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self._timeout_seconds, self._look)
        self._room.enter(self, len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.leave(self)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        self._drop_unread_body()

    @contextmanager
    def held(self) -> Iterator[None]:
        """While a fault holds its request: until then it is among the connections that make room for new ones."""
        self._is_new = False  # whatever comes of its body now, it stays among them
        if self in self.connections:  # else it is lost already, and would take the place of one that can make room
            self._room.hold(self)
        try:
            yield
        finally:
            self._room.leave(self)

    def give_way(self) -> None:
        """There are too many connections, and this one has to go."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._is_refused:
            return
        self._framing_bytes += len(data)
        self._is_parsing = True
        error = self._parse(data)
        self._is_parsing = False
        if error is not None:
            self._refuse(error)
        if self._parsed is not None:
            super()._start_asgi_task(*self._parsed)
            self._parsed = None

    def _parse(self, data: bytes) -> ApiError | None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            if stopped.args[0] < len(data):
                self._end_after_answer()
        except httptools.HttpParserError as error:
            raised = error.__context__  # in one of the methods that the parser calls
            return raised if isinstance(raised, ApiError) else MalformedHttp()
        return HeadTooLarge() if self._framing_bytes > HEAD_BYTES_MAX else None

    def _end_after_answer(self) -> None:
        """Of a request that asks for another protocol, which is answered as if it did not. If it has a body, the parser
        does not say where that ends, and what is taken for the next request might be a part of it.
        """
        self._is_refused = True
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """After the parser: of a request whose body turns out to be broken in the same breath nothing may be done."""
        if self._is_parsing:
            self._parsed = (cycle, app)
        else:
            super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_whole = False
        self._since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Raises MalformedHttp and HeadTooLarge, which come out of the parser."""
        # Where it follows another, what was counted may have begun with that one's end, and not with its own head.
        is_doubtful = self._framing_bytes > HEAD_BYTES_MAX or self._is_answering()
        if is_doubtful and self._head_bytes() > HEAD_BYTES_MAX:
            raise HeadTooLarge
        if self.parser.get_http_version() not in _VERSIONS:
            raise MalformedHttp("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
        if len(self.pipeline) >= AHEAD_MAX:
            raise MalformedHttp(f"More than {AHEAD_MAX} requests were sent ahead of their answers.")
        super().on_headers_complete()
        # Trailers come to the same list, when the headers are read and believed already; so they go nowhere.
        self.headers = deque(maxlen=0)  # type: ignore[assignment]  # a list to uvicorn, which only appends

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        super().on_body(body)

    def shutdown(self) -> None:
        super().shutdown()
        self._timeout_seconds = min(self._timeout_seconds, TIMEOUT_AT_STOP_SECONDS)
        self._since = self.loop.time()
        self._unread = None  # it begins anew
        if self._timer is not None:
            self._timer.cancel()
        self._look()

    def on_message_complete(self) -> None:
        if self._is_new:
            self._is_new = False
            self._room.leave(self)
        self._is_whole = True
        self._framing_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._drop_unread_body()
        if self._is_refused and not self.pipeline:
            self.transport.close()
        super().on_response_complete()

    def _drop_unread_body(self) -> None:
        """Of the last request, if that is over: nobody reads it, and only a search for cycles would free it."""
        last: Any = self.cycle
        if last is not None and (last.response_complete or last.disconnected):
            last.body.clear()

    def _is_answering(self) -> bool:
        """Whether the last request whose head came has no answer yet, or not all of it."""
        last: Any = self.cycle  # None before the first, whatever its type says
        return last is not None and not last.response_complete

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def _look(self) -> None:
        """Close the connection if the client has had its turn for too long; look again when it will have had it."""
        now = self.loop.time()
        began = self._turn_began(now)
        is_late = now >= began + self._timeout_seconds
        self._timer = self.loop.call_at((now if is_late else began) + self._timeout_seconds, self._look)
        if not is_late:
            return
        if self._unread is not None:
            self.transport.abort()  # to close would wait until it is read
        elif self._is_whole or self.scope is None:
            self.transport.close()  # nothing is under way that could be answered
        else:
            self._refuse(RequestTimeout())

    def _turn_began(self, now: float) -> float:
        """Since when it is the client's turn, to take an answer or send the rest of a request. Now, if it is ours."""
        if self.transport.get_write_buffer_size():
            if self._unread is None or self._unread[0] is not self.cycle:
                self._unread = (self.cycle, now)
            return self._unread[1]
        self._unread = None
        if self.flow.read_paused:  # the rest may be there
            self._since = now
        is_waited_for = not self._is_whole or (self.cycle.response_complete and self.timeout_keep_alive_task is None)
        return self._since if is_waited_for and not self._is_refused else now

    def _refuse(self, error: ApiError) -> None:
        """Read no further. Requests that came whole before are answered still, and an answer to this one would be taken
        for theirs; the end of the connection says that it got none.
        """
        self._is_refused = True
        log.info("request refused", status=error.status, code=error.code, client=self.client)
        last: Any = self.cycle
        is_own = last is not None and not self._is_whole and last.scope is self.scope
        if self.pipeline and is_own:
            self.pipeline.popleft()
        elif is_own:
            self._parsed = None
            if not last.response_started:
                self.answer(error)
            last.disconnected = True
            last.message_event.set()
            self.transport.close()
        elif not self._is_answering():
            self.answer(error)
            self.transport.close()

    def answer(self, error: ApiError) -> None:
        """Before there is a request that the application could answer."""
        request_id = new_request_id()
        body = error_body(error, request_id)
        headers = raw_headers(
            {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "X-Request-Id": request_id,
                "Connection": "close",
            }
        )
        lines = [b"%b: %b\r\n" % header for header in [*self.server_state.default_headers, *headers]]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))
