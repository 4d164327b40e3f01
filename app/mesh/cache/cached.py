"""``@cached`` for async functions: the key is the function's name and its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial, wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast
from uuid import UUID

from app.mesh.cache.cache import Cache
from app.mesh.cache.plan import Seconds

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Tags = Collection[str] | Callable[..., Collection[str]]
Key = str | Callable[..., str]

# For these, repr is the value and nothing but the value: 7 is not '7', and True is not 1.
_BY_REPR = frozenset({str, int, float, bool, bytes, type(None)})
_BY_TEXT = (UUID, Decimal, datetime, date, time, timedelta)


class Cached(Protocol[P, R_co]):
    """A cached function; it can still be called as before."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def key_of(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The cache's key for these arguments."""

    async def forget(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the value for these arguments everywhere; returns as `Cache.delete`."""


def cached(
    *,
    cache: Cache,
    ttl: Seconds | None = None,
    tags: Tags = (),
    key: Key | None = None,
    negative: Seconds | None = None,
    stale: Seconds | None = None,
) -> Callable[[Callable[P, Awaitable[R]]], Cached[P, R]]:
    """Cache what an async function returns; see `Cache.get_or_load` for what it may return.

    ::

        @cached(ttl=60, tags=("user:{user_id}",))
        async def profile(user_id: int) -> dict[str, str]: ...

    Args:
        cache: where; may be a proxy.
        tags, key: templates that are filled with the arguments by name, or functions of the same arguments. Without a
            `key` it is the function's name and all its arguments.

    Raises:
        TypeError: at once, if it is no async function; at the call, if an argument can't be part of a key.
    """

    def decorate(function: Callable[P, Awaitable[R]]) -> Cached[P, R]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"@cached needs an async function, and {function.__qualname__} is none")
        call = _Call(function, key, tags)

        @wraps(function)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            load = partial(function, *args, **kwargs)
            return await cache.get_or_load(
                call.key(args, kwargs), load, ttl=ttl, tags=call.tags(args, kwargs), negative=negative, stale=stale,
                name=call.name,
            )  # fmt: skip

        async def forget(*args: P.args, **kwargs: P.kwargs) -> bool:
            return await cache.delete(call.key(args, kwargs))

        extended: Any = wrapper
        extended.key_of = lambda *args, **kwargs: call.key(args, kwargs)
        extended.forget = forget
        return cast("Cached[P, R]", extended)

    return decorate


class _Call:
    """How the calls of one function become keys and tags."""

    def __init__(self, function: Callable[..., Any], key: Key | None, tags: Tags) -> None:
        self._signature = inspect.signature(function)
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._full_name = f"{function.__module__}.{function.__qualname__}"
        self._key, self._tags = key, tags
        self._constant = None if callable(tags) or any("{" in tag for tag in tags) else tuple(tags)
        simple = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        parameters = self._signature.parameters.values()
        self._names = tuple(self._signature.parameters)
        self._defaults = tuple(p.default for p in parameters) if all(p.kind in simple for p in parameters) else None

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if self._key is None:
            return f"{self._full_name}:{self._keyed(args, kwargs)}"
        return self._key(*args, **kwargs) if callable(self._key) else self._key.format(**self._bound(args, kwargs))

    def tags(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Collection[str]:
        if self._constant is not None:
            return self._constant
        if callable(self._tags):
            return self._tags(*args, **kwargs)
        bound = self._bound(args, kwargs)
        return tuple(tag.format(**bound) for tag in self._tags)

    def _keyed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return ",".join(map(self._part, self._bound(args, kwargs).values()))

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        defaults = self._defaults
        if defaults is not None and not kwargs and len(args) <= len(defaults):
            # Binding costs more than all the rest of a hit; with positional arguments alone there is nothing to it.
            values = args + defaults[len(args) :]
            if not any(value is inspect.Parameter.empty for value in values):
                return dict(zip(self._names, values, strict=True))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def _part(self, value: Any) -> str:
        try:
            return part(value)
        except TypeError as error:
            raise TypeError(f"{error}; give @cached of {self._full_name} a key=") from None


def part(value: Any) -> str:
    """`value` as a part of a key; different values have different ones, and so have 1, 1.0, True and '1'.

    Raises:
        TypeError: a value of this kind does not say all that it is.
    """
    kind = type(value)
    if kind in _BY_REPR:
        return repr(value)
    if isinstance(value, Enum):
        return f"{kind.__name__}.{value.name}"
    if kind in _BY_TEXT:
        return f"{kind.__name__}({value})"
    if kind in (list, tuple):
        return f"{kind.__name__}({','.join(map(part, value))})"
    if kind in (set, frozenset):
        return f"set({','.join(sorted(map(part, value)))})"
    if kind is dict:
        return f"dict({','.join(sorted(f'{part(key)}:{part(item)}' for key, item in value.items()))})"
    raise TypeError(f"An argument of type {kind.__name__} can't be part of a cache key")
