"""Who may see what a process knows of itself; what it shows stands in tests/test_process.py."""

from __future__ import annotations

import pytest

from app import settings
from app.web.management import may_see


@pytest.mark.parametrize(
    ("token", "authorization", "opens"),
    [
        pytest.param("sesame", "Bearer sesame", True, id="the token"),
        pytest.param("sesame", "Bearer sesam", False, id="a part of it"),
        pytest.param("sesame", "Bearer sesame ", False, id="more than it"),
        pytest.param("sesame", "sesame", False, id="no scheme"),
        pytest.param("sesame", "", False, id="nothing"),
        pytest.param("sésame", "Bearer sésame", True, id="beyond ASCII"),
        pytest.param(None, "Bearer None", False, id="none configured"),
        pytest.param(None, "Bearer ", False, id="none configured, none given"),
        pytest.param("", "Bearer ", False, id="an empty one is none"),
    ],
)
def test_the_view_opens_to_exactly_the_token(token: str | None, authorization: str, opens: bool) -> None:
    assert may_see(settings.load(management_token=token), authorization) is opens
