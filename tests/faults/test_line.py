"""Some replicas are behind bad lines, and nobody notices who may ask another one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from app.dev import ports
from tests.dev import system
from tests.dev.system import until
from tests.faults import proxy
from tests.faults.journal import Note
from tests.faults.pace import Pace
from tests.faults.proxy import Proxy
from tests.faults.traffic import Mix
from tests.faults.world import World

pytestmark = pytest.mark.timeout(300)

MIXED = {"echo": 3.0, "write": 2.0, "ask": 1.0}
IDEMPOTENT = ("echo", "ask")
TAKES_SECONDS = 0.05


@dataclass(frozen=True)
class Remote:
    """One more toy, and the line that leads to it."""

    port: int
    line: Proxy

    def seen(self) -> int:
        """How many requests have reached it."""
        return sum(system.ask(f"http://127.0.0.1:{self.port}/toy/seen").body["seen"].values())


@contextmanager
def remote(world: World) -> Iterator[Remote]:
    port = ports.any_free()
    with (
        proxy.to(ports.LOOPBACK, port) as line,
        world.joined_by("toy", port=port, url=f"http://127.0.0.1:{line.port}"),
    ):
        yield Remote(port, line)


def test_lines_that_reset_stall_and_are_cut_fail_nothing_that_may_be_repeated_and_double_nothing(
    world: World, pace: Pace, note: Note
) -> None:
    world.tell_all(echo_seconds=TAKES_SECONDS)
    # A line for each misdeed: whoever has been caught at one is left alone for a while.
    with ExitStack() as stack:
        far = [stack.enter_context(remote(world)) for _ in range(3)]
        load = stack.enter_context(world.under(Mix(pace.per_second, MIXED)))
        until("they are asked like the others", lambda: all(each.seen() > 20 for each in far))
        reset(far[0].line, pace)
        stall(far[1].line, pace)
        cut(far[2].line, pace)
        for each in far:
            narrow_and_delay(each.line, pace)
        seen = [each.seen() for each in far]
    journal = load.journal
    note(f"{journal}; over the lines: {seen}")
    assert journal.of_kind(*IDEMPOTENT).failed.counts() == {}
    assert {outcome.status for outcome in journal.failed} <= {503}
    assert world.books.audit(journal) == []


def reset(line: Proxy, pace: Pace) -> None:
    for _ in range(10):
        line.reset()
        time.sleep(pace.after_seconds / 10)


def stall(line: Proxy, pace: Pace) -> None:
    line.stall()
    time.sleep(2 * pace.after_seconds)
    line.flow()


def cut(line: Proxy, pace: Pace) -> None:
    line.cut()
    time.sleep(pace.after_seconds)
    line.mend()


def narrow_and_delay(line: Proxy, pace: Pace) -> None:
    line.limit(2_000)
    line.delay(0.1)
    time.sleep(pace.after_seconds / 2)
    line.limit(None)
    line.delay(0.0)
