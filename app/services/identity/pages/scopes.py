"""Scopes in plain words."""

from __future__ import annotations

from collections.abc import Iterable

_WORDS = {
    "openid": "Know who you are",
    "profile": "See your name",
    "email": "See your e-mail address",
    "offline_access": "Stay connected while you are away",
    "users:read": "See users",
    "users:write": "Create and change users",
    "users:admin": "Manage all users",
    "orders:read": "See orders",
    "orders:write": "Place and cancel orders",
    "orders:admin": "Manage the orders of everybody",
    "inventory:read": "See the stock",
    "inventory:write": "Change the stock",
}


def in_words(scopes: Iterable[str]) -> list[str]:
    """What each scope lets a client do, in the order given; a scope that has no words yet is called by its name."""
    return [_WORDS.get(scope, scope) for scope in scopes]
