"""The load tells the truth: what was answered, what failed and why, what belongs to another."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.dev.system import until
from tests.faults import kinds, traffic
from tests.faults.journal import Journal, Outcome
from tests.faults.traffic import Mix

ECHO = Mix(per_second=100.0, shares={"echo": 1.0})

Answer = Callable[[int], bytes | None]


def reply(number: int, *, status: int = 200, more: str = "") -> bytes:
    body = json.dumps({"number": number, "code": "so_and_so"}).encode()
    return f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


class Server:
    """Answers the n-th request as `answer` says; None: it ends the connection instead."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self.answer = answer
        self.connections = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @contextmanager
    def running(self) -> Iterator[str]:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            self._loop.call_soon_threadsafe(server.close)
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                answer = self.answer(int(head.split()[1].rpartition(b"/")[2]))
                if answer is None:
                    return
                writer.write(answer)
                if b"Connection: close" in head + answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            """The client has had enough."""
        finally:
            writer.close()


def run(answer: Answer, mix: Mix = ECHO, *, requests: int = 50) -> Journal:
    with Server(answer).running() as url, traffic.against(url, mix) as load:
        until("enough has been sent", lambda: load.count >= requests)
    return load.journal


def test_every_request_is_told_with_its_status_and_its_number() -> None:
    journal = run(reply)
    assert journal.counts() == {"echo 200": len(journal)}
    assert [outcome.number for outcome in journal] == list(range(len(journal)))


def test_requests_are_due_at_an_even_rate_whatever_the_server_does() -> None:
    def once_slow(number: int) -> bytes:
        if number == 10:
            time.sleep(0.3)
        return reply(number)

    journal = run(once_slow)
    steps = [later.due - earlier.due for earlier, later in zip(journal, list(journal)[1:], strict=False)]
    assert steps == pytest.approx([0.01] * len(steps))
    # Whoever was due while the server slept has waited.
    assert len(journal.slower_than(0.1)) >= 15


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (lambda number: reply(number, status=503), "echo 503 so_and_so"),
        (lambda number: b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", "echo 500 without a problem document"),
        (lambda number: reply(number + 1), "echo foreign"),
        (lambda number: None, "echo closed"),
        (lambda number: reply(number)[:-3] + b"", "echo timeout"),
        (lambda number: reply(number, more="Connection: close\r\n")[:-3], "echo cut off"),
        (lambda number: b"nonsense\r\n\r\n", "echo broken"),
    ],
    ids=["503", "500", "another's", "closed", "silent", "cut off", "nonsense"],
)
def test_what_failed_is_told_with_its_reason(answer: Answer, counted: str) -> None:
    # Where something comes, it is waited for, however busy the machine is.
    patience_seconds = 0.2 if counted == "echo timeout" else 20.0
    mix = Mix(per_second=100.0, shares={"echo": 1.0}, fresh_share=0.0, timeout_seconds=patience_seconds)
    journal = run(answer, mix, requests=20)
    assert journal.counts() == {counted: len(journal)}
    assert journal.failed == journal


def test_nobody_there_is_a_failure() -> None:
    with Server(reply).running() as url:
        pass
    with traffic.against(url, ECHO) as load:
        until("enough has been sent", lambda: load.count >= 10)
    assert load.journal.counts() == {"echo refused": len(load.journal)}


def test_connections_are_kept_and_a_share_of_requests_has_its_own() -> None:
    server = Server(reply)
    with server.running() as url, traffic.against(url, Mix(100.0, {"echo": 1.0}, fresh_share=0.5)) as load:
        until("enough has been sent", lambda: load.count >= 100)
    own = len([outcome for outcome in load.journal if not outcome.reused])
    assert 0.25 <= own / len(load.journal) <= 0.75
    assert server.connections >= own


def test_a_request_on_a_kept_connection_that_ends_is_not_sent_again() -> None:
    journal = run(lambda number: None if number % 10 == 9 else reply(number))
    assert len(journal.failed) == len([number for number in range(len(journal)) if number % 10 == 9])


def test_a_share_is_given_up_and_counts_neither_as_answered_nor_as_failed() -> None:
    mix = Mix(100.0, {"echo": 1.0}, cancelled_share=0.5, cancelled_within_seconds=0.0)
    journal = run(reply, mix, requests=100)
    assert 0.25 <= len(journal.cancelled) / len(journal) <= 0.75
    assert len(journal.failed) == 0
    assert len(journal.answered) + len(journal.cancelled) == len(journal)


def test_no_two_orders_are_the_same() -> None:
    placed = {json.dumps(kinds.order(number)) for number in range(0, 300_000, 7)}
    assert len(placed) == len(range(0, 300_000, 7))


# ------------------------------------------------------------------------------------------------ the journal


def outcome(due: float, seconds: float = 0.01, *, fault: str = "", kind: str = "user") -> Outcome:
    return Outcome(kind, 0, due, seconds, 0 if fault else 200, fault)


def test_a_journal_is_cut_by_when_requests_were_due() -> None:
    journal = Journal.of([outcome(3.0), outcome(1.0), outcome(2.0)])
    assert [each.due for each in journal] == [1.0, 2.0, 3.0]
    assert [each.due for each in journal.between(1.0, 3.0)] == [1.0, 2.0]


def test_buckets_have_no_gaps() -> None:
    journal = Journal.of([outcome(0.0), outcome(0.05), outcome(0.31)])
    assert [len(bucket) for bucket in journal.buckets(0.1)] == [2, 0, 0, 1]


def test_a_journal_says_what_is_in_it() -> None:
    journal = Journal.of([outcome(0.0), outcome(0.1, 0.03, fault="reset"), outcome(0.2, kind="order")])
    assert str(journal) == "3 requests: 1 order 200, 1 user 200, 1 user reset; p50 10 ms, p99 30 ms"
    assert str(journal.failed.counts()) == "Counter({'user reset': 1})"
