"""Which tests may run beside which, where several workers share the work: ``./scripts/test`` without arguments.

A whole system is a dozen processes under load, and many of its tests compare what they count in two spans of one run.
So all of these run one after the other, on one worker, which begins with them. The other workers have all the rest, test
by test, and that worker joins them in the end.

Those that are marked as `alone` have the machine for themselves: the other workers finish what they are at, and wait.

xdist's own groups (``--dist loadgroup``) would do; with pytest 9.2 and xdist 3.8 they are silently none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# xdist gives the greatest group away first, and this is by far the greatest; so nothing long is left for the end.
SYSTEMS = "systems"
# Where whole systems are started, or both cores are measured.
_PLACES = ("tests/faults/", "tests/dev/", "tests/lab/test_bench.py", "tests/test_process.py")

# A whole system, too, but nothing is compared there: for whichever worker.
_TOGETHER = ("tests/test_contract.py",)

# Two files that are there, to be locked; nothing is written to them.
_DOOR, _ROOM = Path(__file__), Path(__file__).with_name("__init__.py")


class Beside(LoadScopeScheduling):  # type: ignore[misc]  # xdist's own base is untyped
    """Whole systems are one scope, every other test is one of its own."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """Tests of one scope run on one worker, one after the other."""
    if nodeid.startswith(_PLACES):
        return SYSTEMS
    file = nodeid.partition("::")[0]
    return file if file in _TOGETHER else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Beside:
    return Beside(config, log)


# The outermost, so that no timeout counts how long others are waited for.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with _room(fcntl.LOCK_SH if item.get_closest_marker("alone") is None else fcntl.LOCK_EX):
        return (yield)


@contextmanager
def _room(how: int) -> Iterator[None]:
    """Be there with others, or alone."""
    with _ROOM.open() as room:
        # Who waits to be alone stands in the door, or the others would go in and out for ever.
        with _DOOR.open() as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, how)
        yield
