"""What a supervisor reports, shown as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from app.cli.terminal import Screen
from app.dev.boot import BootFailed
from app.dev.events import Event


def until_done(events: Iterable[Event], screen: Screen) -> Iterator[Event]:
    """Show steps and notes, and hand on the rest.

    Raises:
        BootFailed: the news was that it failed.
    """
    for event in events:
        if event.kind == "failed":
            raise BootFailed(event.text, tail=event.details)
        if event.kind == "step":
            screen.step(event.text)
        elif event.kind == "note":
            screen.note(event.text)
        else:
            yield event


@contextmanager
def confession(screen: Screen) -> Iterator[None]:
    """Show what the process that did not start has said."""
    try:
        yield
    except BootFailed as error:
        screen.still()
        for line in error.tail:
            screen.note(f"    {line}")
        raise
