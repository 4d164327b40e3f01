from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from app import errors
from app.errors import PlatformError


def classes() -> list[type[PlatformError]]:
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, PlatformError) and value.__module__ == errors.__name__
    ]


def drawn_tree() -> Iterator[tuple[str, int, str, int]]:
    """(class, status, code, depth) of each line of the drawing at the top of the module."""
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^(?P<indent>[\s│├└─]*)(?P<name>[A-Z]\w+) (?P<status>\d{3}) (?P<code>[a-z_]+)", line)
        if match:
            yield match["name"], int(match["status"]), match["code"], len(match["indent"]) // 4


def test_the_drawing_at_the_top_shows_every_error_with_its_status_and_code() -> None:
    drawn = {name: (status, code) for name, status, code, _ in drawn_tree()}
    assert drawn == {cls.__name__: (cls.status, cls.code) for cls in classes()}


def test_the_drawing_shows_who_descends_from_whom() -> None:
    ancestors: list[str] = []
    for name, _, _, depth in drawn_tree():
        ancestors[depth - 1 :] = [name]
        parents = [base.__name__ for base in getattr(errors, name).__mro__ if base in classes()]
        assert parents == ancestors[::-1]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [cls.code for cls in classes()]
    assert len(set(codes)) == len(codes)


def make(cls: type[PlatformError], detail: str = "") -> PlatformError:
    return errors.PeerUnreachable(detail, sent=False) if cls is errors.PeerUnreachable else cls(detail)


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_an_error_says_its_detail_or_else_its_title(cls: type[PlatformError]) -> None:
    assert make(cls).detail == cls.title
    assert make(cls, "Out of stock").detail == "Out of stock"
    assert str(make(cls, "Out of stock")) == "Out of stock"
    assert repr(make(cls, "x")) == f"<{cls.__name__} {cls.status} {cls.code}: x>"


def test_extensions_are_copied() -> None:
    given = {"sku": "A"}
    error = errors.Conflict(extensions=given)
    given["sku"] = "B"
    assert error.extensions == {"sku": "A"}


def test_invalid_input_names_its_fields() -> None:
    field = {"path": "body.items.0.quantity", "message": "must be positive", "type": "greater_than"}
    assert errors.InvalidInput("No", errors=[field]).extensions == {"errors": [field]}
    assert errors.InvalidInput("No").extensions == {}


def test_an_unreachable_peer_tells_whether_the_request_may_have_arrived() -> None:
    assert errors.PeerUnreachable(sent=True).sent
    assert not errors.PeerUnreachable(sent=False).sent
    assert errors.PeerUnreachable(sent=False).retry_after == 1.0


def test_one_except_catches_all_that_trying_again_may_mend() -> None:
    for cls in (errors.NoInstance, errors.DeadlineExceeded, errors.BadReply):
        with pytest.raises(errors.Unavailable):
            raise cls("x", retry_after=2.5)
