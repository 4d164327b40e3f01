"""Which tests may run beside which, where several workers share the work: ``./scripts/test`` without arguments.

A whole system is a dozen processes under load, and many of its tests compare what they count in two spans of one run.
So all of these run one after the other, on one worker, which begins with them. The other workers have all the rest, test
by test, and that worker joins them in the end.
"""

from __future__ import annotations

import pytest

# xdist gives the greatest group away first, and this is by far the greatest; so nothing long is left for the end.
SYSTEMS = "systems"
# A module that knows one of these starts systems, and shares one among its tests.
STARTERS = frozenset({"System", "World"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and STARTERS & vars(item.module).keys():
            item.add_marker(pytest.mark.xdist_group(SYSTEMS))
