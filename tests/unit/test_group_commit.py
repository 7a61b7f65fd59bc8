"""Group commit: what is written together, what waits for what, and whose outcome is whose."""

import asyncio
from collections.abc import Sequence

import pytest

from mockpay.errors import ApiError, DatabaseUnavailable, NotFound
from mockpay.postgres.group_commit import GroupCommit


class Disk:
    """Writes batches of words when it is let. A word that is refused fails alone, one that is broken fails its batch."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def write(self, words: Sequence[str]) -> list[str | ApiError]:
        self.batches.append(list(words))
        await self.gate.wait()
        if self.failure:
            raise self.failure
        if "broken" in words:
            raise ZeroDivisionError
        return [NotFound("refused") if word == "refused" else word.upper() for word in words]


async def submitted(commit: GroupCommit[str, str], *words: str) -> list["asyncio.Task[str]"]:
    tasks = [asyncio.create_task(commit.submit(word)) for word in words]
    await asyncio.sleep(0)
    return tasks


async def settled(tasks: list["asyncio.Task[str]"]) -> list[str]:
    found = await asyncio.gather(*tasks, return_exceptions=True)
    return [each if isinstance(each, str) else type(each).__name__ for each in found]


async def test_one_alone_waits_for_nobody() -> None:
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=10, linger_seconds=60)
    async with asyncio.timeout(1):
        assert [await commit.submit(word) for word in ("a", "b")] == ["A", "B"]
    assert disk.batches == [["a"], ["b"]]


async def test_what_comes_meanwhile_is_the_next_batch() -> None:
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=3)
    disk.gate.clear()
    tasks = await submitted(commit, "a")
    await asyncio.sleep(0)
    tasks += await submitted(commit, "b", "c", "d", "e")
    disk.gate.set()
    assert await settled(tasks) == ["A", "B", "C", "D", "E"]
    assert disk.batches == [["a"], ["b", "c", "d"], ["e"]]


async def test_each_has_its_own_outcome() -> None:
    commit = GroupCommit(Disk().write, batch_max=10)
    assert await settled(await submitted(commit, "a", "refused", "b")) == ["A", "NotFound", "B"]


async def test_a_batch_that_fails_is_retried_one_by_one() -> None:
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=10)
    assert await settled(await submitted(commit, "a", "broken", "b")) == ["A", "ZeroDivisionError", "B"]
    assert disk.batches == [["a", "broken", "b"], ["a"], ["broken"], ["b"]]


async def test_a_database_that_is_away_is_away_for_all() -> None:
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=10)
    disk.failure = DatabaseUnavailable()
    assert await settled(await submitted(commit, "a", "b")) == ["DatabaseUnavailable"] * 2
    assert disk.batches == [["a", "b"]]
    disk.failure = None
    assert await commit.submit("c") == "C"


async def test_who_gave_up_is_left_out() -> None:
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=10)
    disk.gate.clear()
    tasks = await submitted(commit, "a")
    await asyncio.sleep(0)
    tasks += await submitted(commit, "b", "c")
    tasks[0].cancel()  # its batch has begun
    tasks[1].cancel()
    await asyncio.sleep(0)
    disk.gate.set()
    assert await tasks[2] == "C"
    assert disk.batches == [["a"], ["c"]]


@pytest.mark.parametrize("steps", range(8))
async def test_nobody_is_forgotten_who_comes_as_the_writer_ends(steps: int) -> None:
    commit = GroupCommit(Disk().write, batch_max=10)
    first = asyncio.create_task(commit.submit("a"))
    for _ in range(steps):
        await asyncio.sleep(0)
    async with asyncio.timeout(1):
        assert await commit.submit("b") == "B"
    assert await first == "A"


async def test_between_batches_it_waits_for_who_was_answered_just_now() -> None:
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=10, linger_seconds=5)
    disk.gate.clear()
    tasks = await submitted(commit, "a", "b", "c")
    await asyncio.sleep(0)
    tasks += await submitted(commit, "d")
    disk.gate.set()
    await settled(tasks[:3])
    await asyncio.sleep(0.01)
    assert disk.batches == [["a", "b", "c"]]  # and waits for two more
    async with asyncio.timeout(1):
        assert await settled([*tasks[3:], *await submitted(commit, "e", "f")]) == ["D", "E", "F"]
    assert disk.batches[1:] == [["d", "e", "f"]]


async def test_it_does_not_wait_for_long() -> None:
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=10, linger_seconds=0.01)
    await settled(await submitted(commit, "a", "b", "c"))
    async with asyncio.timeout(1):
        assert await commit.submit("d") == "D"
        await asyncio.sleep(0.05)
        assert await commit.submit("e") == "E"


async def test_nobody_waits_for_longer_than_his_patience_wherever_he_is_in_the_queue() -> None:
    """One is being written by a database that hangs, the other has not begun. What is written late harms nobody."""
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=1, patience_seconds=0.05)
    disk.gate.clear()
    async with asyncio.timeout(5):
        assert await settled(await submitted(commit, "a", "b")) == ["DatabaseUnavailable"] * 2
    later = await submitted(commit, "c")
    disk.gate.set()
    assert await settled(later) == ["C"]
    assert disk.batches == [["a"], ["c"]], "b was never begun"


async def test_patience_is_counted_from_when_each_came() -> None:
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=1, patience_seconds=0.2)
    disk.gate.clear()
    first = await submitted(commit, "a")
    await asyncio.sleep(0.15)  # the time is what this is about
    second = await submitted(commit, "b")
    assert await settled(first) == ["DatabaseUnavailable"]
    assert not second[0].done()
    disk.gate.set()
    assert await settled(second) == ["B"]


async def test_a_batch_that_waited_in_vain_tells_all_who_wait() -> None:
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=2)
    disk.failure = DatabaseUnavailable()
    disk.failure.__cause__ = TimeoutError()
    assert await settled(await submitted(commit, *"abcdefg")) == ["DatabaseUnavailable"] * 7
    assert disk.batches == [["a", "b"]]


async def test_who_was_told_meanwhile_is_not_written_one_by_one() -> None:
    """A batch fails for another reason, and then the database hangs: nothing more is tried of it."""
    begun: list[str] = []
    gate = asyncio.Event()

    async def write(words: Sequence[str]) -> list[str | ApiError]:
        if len(words) > 1:
            raise ZeroDivisionError
        begun.append(words[0])
        if words[0] == "a":
            return ["A"]
        await gate.wait()
        raise DatabaseUnavailable from TimeoutError()

    commit = GroupCommit(write, batch_max=64, patience_seconds=0.05)
    tasks = await submitted(commit, *"abcdef")
    assert await settled(tasks) == ["A"] + ["DatabaseUnavailable"] * 5
    gate.set()
    assert await settled(await submitted(commit, "a")) == ["A"]
    assert begun == ["a", "b", "a"]


async def test_a_deadline_that_began_before_ends_before() -> None:
    disk = Disk()
    commit = GroupCommit(disk.write, batch_max=1)
    disk.gate.clear()
    first = await submitted(commit, "a")
    hasty = asyncio.create_task(commit.submit("b", asyncio.get_running_loop().time() + 0.05))
    assert await settled([hasty]) == ["DatabaseUnavailable"]
    assert not first[0].done()
    disk.gate.set()
    assert await settled(first) == ["A"]


async def test_a_connection_that_breaks_tells_its_batch_only() -> None:
    disk = Disk()

    async def write(words: Sequence[str]) -> list[str | ApiError]:
        if "a" in words:
            raise DatabaseUnavailable from ConnectionResetError()
        return await disk.write(words)

    tasks = await submitted(GroupCommit(write, batch_max=2), *"abcd")
    assert await settled(tasks) == ["DatabaseUnavailable", "DatabaseUnavailable", "C", "D"]


async def test_what_was_answered_is_not_kept() -> None:
    commit = GroupCommit(Disk().write, batch_max=10)
    for _ in range(100):
        await settled(await submitted(commit, *"abc"))
    assert (len(commit._unanswered), commit._timer) == (0, None)
