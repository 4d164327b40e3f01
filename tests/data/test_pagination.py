from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data import pagination
from app.data.fields import MAX_ID
from app.data.pagination import Page
from app.errors import InvalidInput


@given(st.integers(0, MAX_ID))
def test_a_cursor_of_an_id_leads_back_to_it(number: int) -> None:
    assert pagination.after_id(pagination.encode(number)) == number


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64))
def test_a_cursor_of_a_text_leads_back_to_it(key: str) -> None:
    assert pagination.after_key(pagination.encode(key)) == key


def test_the_first_page_needs_no_cursor() -> None:
    assert pagination.after_id(None) == 0
    assert pagination.after_key(None) == ""


def encoded(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


MALFORMED = {
    "empty": "",
    "no base64": "%%%",
    "not ASCII": "ä",
    "one letter": "a",
    "no kind": encoded(b"7"),
    "unknown kind": encoded(b"x7"),
    "no number": encoded(b"i"),
    "sign": encoded(b"i-7"),
    "leading zero": encoded(b"i07"),
    "beyond 64 bits": encoded(b"i" + str(MAX_ID + 1).encode()),
    "a long number": encoded(b"i" + b"9" * 300),
    "foreign digits": encoded("i٧".encode()),
    "not UTF-8": encoded(b"i\xff"),
    "padded": pagination.encode(7) + "=",
    "a line break": pagination.encode(7) + "\n",
    "of another list": pagination.encode("tea"),
}


@pytest.mark.parametrize("cursor", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_cursor_is_the_client_s_fault(cursor: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        pagination.after_id(cursor)
    assert caught.value.extensions["errors"][0]["path"] == "query.cursor"


@given(st.text(max_size=40))
def test_whatever_is_sent_as_a_cursor_is_read_or_refused(cursor: str) -> None:
    for read in (pagination.after_id, pagination.after_key):
        with suppress(InvalidInput):
            assert pagination.encode(read(cursor)) == cursor


def test_a_nul_in_a_text_cursor_is_refused() -> None:
    with pytest.raises(InvalidInput):
        pagination.after_key(encoded(b"s\0"))


@pytest.mark.parametrize(("rows", "items", "more"), [(0, 0, False), (2, 2, False), (3, 2, True)])
def test_one_row_too_many_says_that_there_is_more(rows: int, items: int, more: bool) -> None:
    page = pagination.cut(list(range(1, rows + 1)), 2, lambda row: row)
    assert len(page.items) == items
    assert page.next == (pagination.encode(2) if more else None)


def test_the_links_repeat_the_query_and_move_the_cursor() -> None:
    page = Page([1], "abc")
    assert pagination.links("/orders", page, limit=1, user_id=None) == {
        "Link": '</orders?limit=1>; rel="first", </orders?limit=1&cursor=abc>; rel="next"'
    }
    assert pagination.links("/orders", Page([1], None), limit=1) == {"Link": '</orders?limit=1>; rel="first"'}
    assert pagination.links("/orders", Page([1], None)) == {"Link": '</orders>; rel="first"'}
