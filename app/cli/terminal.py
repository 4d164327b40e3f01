"""Tables and progress: drawn on a terminal, plain lines where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO, Self

from rich.console import Console
from rich.status import Status
from rich.table import Table

# Where there is no terminal there is no width either: nothing is to be folded or cut.
NO_WIDTH = 10_000


def console(stream: IO[str] | None = None) -> Console:
    """A console on `stream` (default: stdout)."""
    stream = stream or sys.stdout
    return Console(file=stream, width=None if stream.isatty() else NO_WIDTH, highlight=False, emoji=False, markup=False)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns on stdout."""
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


class Screen:
    """Shows what happens, on stderr: steps behind a spinner on a terminal, a line each elsewhere; notes stay.

    Use as a context manager; the spinner ends with it, or with `still`.
    """

    def __init__(self, first: str) -> None:
        self._out = console(sys.stderr)
        self._first = first
        self._spinner: Status | None = self._out.status(f"{first} …") if self._out.is_terminal else None

    def __enter__(self) -> Self:
        if self._spinner is None:
            self._out.print(f"{self._first} …")
        else:
            self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.still()

    def still(self) -> None:
        """End the spinner: what is printed from now on stays."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    def step(self, text: str) -> None:
        if self._spinner is None:
            self._out.print(text)
        else:
            self._spinner.update(f"{text} …")

    def note(self, text: str) -> None:
        self._out.print(text)
