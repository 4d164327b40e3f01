"""Finds the instance that a command names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from app.dev.roster import Member
from app.errors import InvalidInput, NotFound

InstanceId = Annotated[str, typer.Argument(metavar="INSTANCE", help="Its id in `mesh ps`, or the beginning of it.")]
_NAMED = 5


def find(members: Sequence[Member], word: str) -> Member:
    """The member with the id `word`, or the only one whose id begins with it.

    Raises:
        NotFound: there is none.
        InvalidInput: there are several.
    """
    found = [member for member in members if member.instance.id.startswith(word)]
    exact = [member for member in found if member.instance.id == word]
    if not found:
        raise NotFound(f"No instance {word!r} is registered; `mesh ps` lists them")
    if len(exact or found) > 1:
        ids = [member.instance.id for member in found]
        raise InvalidInput(f"{word!r} could be {', '.join(ids[:_NAMED])}{' …' if len(ids) > _NAMED else ''}")
    return (exact or found)[0]
