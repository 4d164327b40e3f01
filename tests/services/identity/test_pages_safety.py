from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.identity.pages import forms, safety


@given(st.text())
def test_whatever_is_asked_for_the_way_on_begins_with_one_of_our_paths(text: str) -> None:
    for path in (text, f"/account{text}", f"/oauth/{text}"):
        found = safety.inside(path)
        assert found.startswith(("/account", "/oauth/"))
        assert found in (path, safety.HOME)
        assert not any(c in found.split("?")[0] for c in "\\.:@\r\n\t ")
        assert "//" not in found.split("?")[0]


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("https://client.example/cb?x=1", "https://client.example"),
        ("https://client.example:8443/cb", "https://client.example:8443"),
        ("http://127.0.0.1:51234/callback", "http://127.0.0.1:51234"),
        ("http://[::1]:51234/callback", "http:"),
        ("com.example.app:/callback", "com.example.app:"),
        ("javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("https://", None),
        ("https://a b;script-src *", None),
        ("https://x;script-src *", None),
        ("https://x:port/", None),
        ("", None),
    ],
)
def test_a_form_may_lead_to_the_origin_of_an_address(uri: str, source: str | None) -> None:
    assert safety.form_target(uri) == source


@given(st.text())
def test_no_address_breaks_out_of_the_policy(text: str) -> None:
    for uri in (text, f"https://{text}", f"x{text}"):
        source = safety.form_target(uri)
        assert source is None or (source.isascii() and not set(source) & set(" ;,'\"\r\n\t"))


def test_a_form_token_is_of_one_cookie_and_one_key_and_the_same_in_every_replica() -> None:
    key = forms.key("a secret")
    token = forms.token(key, "cookie")
    assert forms.is_ours(forms.key("a secret"), "cookie", token)
    assert not forms.is_ours(key, "another", token)
    assert not forms.is_ours(forms.key("another"), "cookie", token)
    assert not forms.is_ours(forms.key(None), "cookie", token)
    assert not forms.is_ours(key, "", forms.token(key, ""))
    assert forms.is_ours(forms.key(None), "cookie", forms.token(forms.key(None), "cookie"))


def test_the_key_of_forms_is_not_the_secret_itself() -> None:
    assert forms.key("a secret") != b"a secret"
