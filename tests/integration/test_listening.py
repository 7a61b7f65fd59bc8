"""The sockets of several server processes: of one port, which is theirs alone, and with an equal share of what comes."""

import contextlib
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat

import pytest

from mockpay.errors import StartupError
from mockpay.listening import base_url, bind
from mockpay.settings import Settings
from tests.support.servers import free_port

SETTINGS = Settings(port=0, workers=2)
STARTS = 8


def test_each_process_has_a_socket_and_connections_are_shared_out() -> None:
    with bind(SETTINGS) as listeners, contextlib.ExitStack() as opened:
        assert len(listeners) == (2 if sys.platform == "linux" else 1)
        assert len({base_url(listener) for listener in listeners}) == 1
        for listener in listeners:
            listener.listen(128)
            listener.setblocking(False)
        for _ in range(64):
            opened.enter_context(socket.create_connection(listeners[0].getsockname()))
        shares = [accepted(listener, opened) for listener in listeners]
    assert sum(shares) == 64
    assert min(shares) > 8


def accepted(listener: socket.socket, opened: contextlib.ExitStack) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            opened.enter_context(listener.accept()[0])
            count += 1
    return count


def test_the_port_of_a_server_with_several_processes_is_taken() -> None:
    with bind(SETTINGS) as listeners:
        for listener in listeners:
            listener.listen()
        port = listeners[0].getsockname()[1]
        for workers in (1, 2):
            with pytest.raises(StartupError, match="is taken"), bind(replace(SETTINGS, port=port, workers=workers)):
                pass


def test_one_process_has_one_socket() -> None:
    with bind(replace(SETTINGS, workers=1)) as listeners:
        assert len(listeners) == 1


def test_of_many_starts_at_the_same_moment_one_has_the_port() -> None:
    """Those with several processes could share it: the system allows that to sockets of one user."""
    for _ in range(200):
        settings = replace(SETTINGS, port=free_port())
        every = threading.Barrier(STARTS)
        with ThreadPoolExecutor(STARTS) as threads:
            had = list(threads.map(has_port, repeat(settings), range(STARTS), repeat(every)))
        assert sum(had) == 1


def has_port(settings: Settings, number: int, every: threading.Barrier) -> bool:
    every.wait()
    try:
        with bind(replace(settings, workers=2 if number else 1)):
            every.wait()  # nobody gives it back before all have tried
    except StartupError:
        every.wait()
        return False
    return True


def test_it_listens_at_once_with_room_for_a_burst() -> None:
    with bind(replace(SETTINGS, workers=1)) as [listener], contextlib.ExitStack() as opened:
        for _ in range(300):
            opened.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
