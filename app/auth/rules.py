"""What a route asks for. Rules are values; `&`, `|` and `~` make new ones; calling one declares it on a view or blueprint.

    @requires("orders:write")
    @requires_role("admin") | requires("reports:read")
    @owner_or("users:admin", of="user_id")
    @requires("orders:read") & owner(of=owner_of_order)
    @callers("orders")
    @public

A rule holds or it does not, for somebody or for nobody: `public` alone holds for nobody in particular. In the manner of
Flask-Principal's needs, which are filled from the same token (see `app.web.views.guarding`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app.auth import declared
from app.auth.principal import Principal

Target = TypeVar("Target", bound=Callable[..., Any] | Any)

# Who owns what a request is about: the name of a variable of its path, or a function of all of them, async or plain.
Of = str | Callable[..., Any]


def _never(_: Awaitable[Any]) -> Any:
    raise RuntimeError("This owner is looked up asynchronously, and nobody can wait here")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rule is asked about.

    Args:
        principal: the bearer of the request's token; None without one.
        variables: of the request's path, by name.
        wait: awaits, for an owner that has to be looked up.
    """

    principal: Principal | None
    variables: Mapping[str, Any] = field(default_factory=dict)
    wait: Callable[[Awaitable[Any]], Any] = _never


class Rule(ABC):
    """Something that a route may ask for."""

    __slots__ = ()

    @abstractmethod
    def holds(self, asked: Asked) -> bool:
        """Whether it is so."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that it names: those that a client is told to come back with."""
        return ()

    @property
    def is_public(self) -> bool:
        """Whether it holds for everybody, so that nobody needs to be asked who they are."""
        return False

    @property
    def introspects(self) -> bool:
        """Whether the issuer is to be asked if the token still counts."""
        return False

    def __call__(self, target: Target) -> Target:
        """Declare it on a view function, a view class or a blueprint."""
        return declared.declare(target, self)

    def __and__(self, other: Rule) -> Rule:
        return AllOf((self, other))

    def __or__(self, other: Rule) -> Rule:
        return AnyOf((self, other))

    def __invert__(self) -> Rule:
        return Not(self)


@dataclass(frozen=True, slots=True)
class Public(Rule):
    """Everybody may."""

    def holds(self, asked: Asked) -> bool:
        return True

    @property
    def is_public(self) -> bool:
        return True

    def __str__(self) -> str:
        return "public"


@dataclass(frozen=True, slots=True)
class Scopes(Rule):
    """The token has all of these scopes."""

    wanted: frozenset[str]
    introspect: bool = False

    def holds(self, asked: Asked) -> bool:
        return asked.principal is not None and self.wanted <= asked.principal.scopes

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(sorted(self.wanted))

    @property
    def introspects(self) -> bool:
        return self.introspect

    def __str__(self) -> str:
        return " ".join(self.scopes)


@dataclass(frozen=True, slots=True)
class Role(Rule):
    """The user has this role."""

    name: str

    def holds(self, asked: Asked) -> bool:
        return asked.principal is not None and self.name in asked.principal.roles

    def __str__(self) -> str:
        return f"role {self.name}"


@dataclass(frozen=True, slots=True)
class Callers(Rule):
    """One of these services calls, for itself or in a user's name."""

    names: frozenset[str]

    def holds(self, asked: Asked) -> bool:
        return asked.principal is not None and asked.principal.caller in self.names

    def __str__(self) -> str:
        return f"called by {' or '.join(sorted(self.names))}"


@dataclass(frozen=True, slots=True)
class Owner(Rule):
    """The user owns what the request is about. What does not exist has no owner."""

    of: Of

    def holds(self, asked: Asked) -> bool:
        principal = asked.principal
        if principal is None or principal.is_client:
            return False
        if isinstance(self.of, str):
            return principal.owns(asked.variables.get(self.of))
        found = self.of(**asked.variables)
        return principal.owns(asked.wait(found) if hasattr(found, "__await__") else found)

    def __str__(self) -> str:
        return f"owner of {self.of if isinstance(self.of, str) else self.of.__name__}"


class _Composed(Rule):
    """Several rules in one."""

    __slots__ = ()

    parts: tuple[Rule, ...]

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(scope for part in self.parts for scope in part.scopes))

    @property
    def introspects(self) -> bool:
        return any(part.introspects for part in self.parts)


@dataclass(frozen=True, slots=True)
class AllOf(_Composed):
    parts: tuple[Rule, ...]

    def holds(self, asked: Asked) -> bool:
        return all(part.holds(asked) for part in self.parts)

    @property
    def is_public(self) -> bool:
        return all(part.is_public for part in self.parts)

    def __str__(self) -> str:
        return f"({' & '.join(map(str, self.parts))})"


@dataclass(frozen=True, slots=True)
class AnyOf(_Composed):
    parts: tuple[Rule, ...]

    def holds(self, asked: Asked) -> bool:
        return any(part.holds(asked) for part in self.parts)

    @property
    def is_public(self) -> bool:
        return any(part.is_public for part in self.parts)

    def __str__(self) -> str:
        return f"({' | '.join(map(str, self.parts))})"


@dataclass(frozen=True, slots=True)
class Not(Rule):
    """Somebody is there for whom the other rule does not hold."""

    other: Rule

    def holds(self, asked: Asked) -> bool:
        # Without a token nobody has shown that they are not: a rule turned round must not open a door to strangers.
        return asked.principal is not None and not self.other.holds(asked)

    @property
    def introspects(self) -> bool:
        return self.other.introspects

    def __str__(self) -> str:
        return f"~{self.other}"


public = Public()


def requires(*scopes: str, callers: tuple[str, ...] | list[str] = (), introspect: bool = False) -> Rule:
    """The token must have all of `scopes` and, if `callers` names any, come from one of these services.

    Args:
        introspect: ask the issuer, too, whether the token still counts: for routes where a revocation must hold at once.

    Raises:
        ValueError: it asks for nothing.
    """
    if not scopes and not callers:
        raise ValueError("requires() asks for nothing: name a scope or callers, or say public")
    rule: Rule = Scopes(frozenset(scopes), introspect)
    if not callers:
        return rule
    return Callers(frozenset(callers)) & rule if scopes or introspect else Callers(frozenset(callers))


def requires_role(name: str) -> Rule:
    """The user must have the role `name`."""
    return Role(name)


def callers(*names: str) -> Rule:
    """Only these services may call."""
    return Callers(frozenset(names))


def owner(*, of: Of) -> Rule:
    """The user must own what the request is about.

    Args:
        of: the variable of the path that holds the owner's id; or a function of all variables, async or plain, that
            returns it, or None if there is no such thing.
    """
    return Owner(of)


def owner_or(*scopes: str, of: Of) -> Rule:
    """The user must own what the request is about, or the token have all of `scopes`."""
    return owner(of=of) | requires(*scopes)
