"""Which scopes there are, and who may have which: pure decisions. A scope is a word; many are one text, between spaces."""

from __future__ import annotations

from collections.abc import Collection, Iterable

# What a client learns about the person.
OF_PERSON = ("openid", "profile", "email", "offline_access")
# What every service's API has.
VERBS = ("read", "write", "admin")
# Never in a user's name.
OF_SERVICES = ("inventory:reserve",)

ADMIN = "admin"


def words(scope: str | None) -> tuple[str, ...]:
    """The scopes in a text, each once, in their order."""
    return tuple(dict.fromkeys((scope or "").split()))


def text(scopes: Iterable[str]) -> str:
    return " ".join(scopes)


def of_services(names: Iterable[str]) -> tuple[str, ...]:
    """The scopes of the APIs of these services."""
    return tuple(f"{name}:{verb}" for name in names for verb in VERBS)


def needs_admin(scope: str) -> bool:
    return scope.endswith(":admin") or scope == "inventory:write"


def for_user(scopes: Iterable[str], roles: Collection[str]) -> tuple[str, ...]:
    """Those of `scopes` that a user with `roles` can give away."""
    return tuple(
        scope for scope in scopes if scope not in OF_SERVICES and (ADMIN in roles or not needs_admin(scope))
    )  # fmt: skip


def for_client(scopes: Iterable[str]) -> tuple[str, ...]:
    """Those of `scopes` that make sense where there is no person."""
    return tuple(scope for scope in scopes if scope not in OF_PERSON)


def within(wished: str | None, allowed: Collection[str]) -> tuple[str, ...] | None:
    """What is wished, by default all that is allowed; None if it is more than that."""
    asked = words(wished)
    if not asked:
        return tuple(allowed)
    return asked if set(asked) <= set(allowed) else None
