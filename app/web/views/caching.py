"""``@cached`` and ``@cached_view``: the process's cache for functions and for views, with what HTTP asks of it (RFC 9111).

A view's answer is kept on the server for `ttl` seconds and made once for all who ask for it at the same time. What is
kept is a whole answer: 200, 203, 301 or 308, not streamed, of a view that has touched no session. Hooks run for every
request, also for those that are answered from the cache; only the view itself is spared.

    GET or HEAD ─► no-store, Range, a session in use, Authorization? ─► the view
        │ none of them
        ▼
    kept under path, query, host and the headers of `vary`? ─► that, with Age, or a 304
        │ no
        ▼
    the view, one for all who wait ─► kept, unless it says no-store, private, Set-Cookie, Vary: * …
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, cast

import orjson
from flask import Response, request
from werkzeug.exceptions import HTTPException

from app.errors import PlatformError
from app.mesh.cache import Found, Keep, Uncached
from app.mesh.cache.cached import Cached, Key, Tags
from app.mesh.cache.cached import cached as cached_in
from app.mesh.cache.plan import Seconds, seconds
from app.web.views.current import cache, resources
from app.web.views.decorating import Run, decorating, runner
from app.web.views.kept import Answer, own_max_age, session_is_in_use, why_not

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V", bound=Callable[..., Any])

_STATUS_NAME = "flask-mesh"


def cached(
    *,
    ttl: Seconds | None = None,
    tags: Tags = (),
    key: Key | None = None,
    negative: Seconds | None = None,
    stale: Seconds | None = None,
) -> Callable[[Callable[P, Awaitable[R]]], Cached[P, R]]:
    """`app.mesh.cache.cached` in the cache of this process, for async functions that are called within a request."""
    return cached_in(cache=cache, ttl=ttl, tags=tags, key=key, negative=negative, stale=stale)


def cached_view(
    *,
    ttl: Seconds | None = None,
    tags: Collection[str] | Callable[[], Collection[str]] = (),
    vary: Collection[str] = (),
    per: Literal["user"] | Callable[[], str] | None = None,
    public: bool = False,
    max_age: Seconds | None = None,
    stale: Seconds | None = None,
) -> Callable[[V], V]:
    """Cache the answers of a view, async or plain; it stands directly above the function, below the route.

    A request with Authorization neither fills nor gets a shared answer, unless `per` or `vary` tells the users apart, or
    the view says ``public``, here or in its Cache-Control (RFC 9111, 3.5). A view that looks at cookies must name Cookie
    in `vary`, one that writes absolute addresses Host.

    Args:
        tags: as in ``("user:{user_id}",)``, filled with the variables of the route; or a function without arguments.
        vary: request headers on which the answer depends; they also go into its Vary.
        per: ``user``: by the Authorization header; or a function that says who asks.
        max_age: how long clients may use it without asking. By default as long as it is fresh here; with tags not at
            all, since no invalidation reaches them: they ask again each time, and get a 304.
        stale: how long after `ttl` it stands in while the view fails.
    """
    rule = _Rule(ttl, tags, frozenset(name.lower() for name in vary), per, public, max_age, stale)

    def decorate(view: V) -> V:
        @decorating(view)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await _answer(rule, runner(view, args, kwargs))

        return cast(V, wrapper)

    return decorate


class _Rule(NamedTuple):
    """What a view's author has said."""

    ttl: Seconds | None
    tags: Collection[str] | Callable[[], Collection[str]]
    vary: frozenset[str]
    per: Literal["user"] | Callable[[], str] | None
    public: bool
    max_age: Seconds | None
    stale: Seconds | None

    @property
    def personal(self) -> bool:
        """Whether users are told apart."""
        return self.per is not None or "authorization" in self.vary

    @property
    def headers(self) -> frozenset[str]:
        return self.vary | {"authorization"} if self.per == "user" else self.vary

    def key(self) -> str:
        """What the answer depends on. As a digest: it may hold a token, and is as long as the client likes."""
        named = [(name, request.headers.getlist(name)) for name in sorted(self.headers)]
        who = self.per() if callable(self.per) else ""
        parts = [request.script_root, request.path, request.query_string.decode("latin-1"), named, who]
        digest = hashlib.blake2b(orjson.dumps(parts, default=str), digest_size=20).hexdigest()
        return f"view:{request.endpoint}:{digest}"

    def tags_now(self) -> Collection[str]:
        if callable(self.tags):
            return self.tags()
        variables = request.view_args or {}
        return tuple(tag.format(**variables) for tag in self.tags)


class _Failed(Exception):
    """The view has answered with a 5xx: a stale answer may stand in."""

    def __init__(self, packed: bytes) -> None:
        super().__init__()
        self.packed = packed


async def _answer(rule: _Rule, run: Run) -> Response:
    if request.method not in ("GET", "HEAD") or _is_bypassed():
        return await run()
    shared_only = "Authorization" in request.headers and not rule.personal and not rule.public
    if shared_only or request.method == "HEAD":
        found = await cache.peek(rule.key())
        kept = None if found is None else Answer.unpack(found.value)
        if found is None or kept is None or (shared_only and not kept.public):
            return await run()
        return _dress(kept.response(), rule, found, "hit")
    return await _load(rule, run)


async def _load(rule: _Rule, run: Run) -> Response:
    """The answer, kept or made here; others who ask meanwhile wait for it."""
    own = _Own(rule, run)
    try:
        found = await cache.fetch(
            rule.key(), own.load, ttl=rule.ttl, tags=rule.tags_now(), stale=rule.stale,
            name=f"view {request.endpoint}", inline=True,
        )  # fmt: skip
    except Uncached:
        # Another's answer that is not to be kept is not to be shared either.
        return await run() if own.outcome is None else own.result()
    except _Failed as failure:
        return own.result() if own.outcome is not None else Answer.unpack(failure.packed).response()
    if own.kept:
        return _dress(own.result(), rule, found, "fwd=uri-miss; stored")
    return _dress(Answer.unpack(found.value).response(), rule, found, "hit")


class _Own:
    """The run of the view that this request makes, if it comes to that."""

    def __init__(self, rule: _Rule, run: Run) -> None:
        self._rule, self._run = rule, run
        self.outcome: Response | Exception | None = None
        self.kept = False

    async def load(self) -> Keep | bytes:
        """What the cache is to keep. Raises: Uncached, _Failed, and whatever else goes wrong in the view."""
        try:
            self.outcome = response = await self._run()
        except (HTTPException, PlatformError) as error:
            status = error.status if isinstance(error, PlatformError) else error.code or 500
            if status >= 500:
                raise
            self.outcome = error
            raise Uncached(str(status)) from error
        if response.status_code >= 500 and response.is_sequence:
            raise _Failed(Answer.of(response, public=self._rule.public).pack())
        reason = why_not(response, vary=self._rule.headers, personal=self._rule.personal)
        if reason:
            response.headers.add("Cache-Status", f"{_STATUS_NAME}; fwd=uri-miss; detail={reason}")
            raise Uncached(reason)
        packed = Answer.of(response, public=self._rule.public).pack()
        self.kept = True
        own_age = own_max_age(response)
        ttl = seconds(self._rule.ttl, resources.settings.cache.ttl_seconds)
        return packed if own_age is None else Keep(packed, min(own_age, ttl))

    def result(self) -> Response:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return cast(Response, self.outcome)


def _is_bypassed() -> bool:
    """Whether this request is none of the cache's business."""
    return request.cache_control.no_store or "Range" in request.headers or session_is_in_use()


def _dress(response: Response, rule: _Rule, found: Found, how: str) -> Response:
    """Add what HTTP wants to know of an answer that was kept, and make it a 304 if that is all that is asked for."""
    if how == "hit":
        response.headers["Age"] = str(int(found.age))
        how = f"hit; ttl={int(found.fresh_for)}"
    response.headers.add("Cache-Status", f"{_STATUS_NAME}; {how}")
    response.vary.update(name.title() for name in rule.headers)
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = _control(rule, found)
    if response.status_code == 200:
        response.make_conditional(request)
    return response


def _control(rule: _Rule, found: Found) -> str:
    scope = "private, " if rule.personal else "public, " if rule.public else ""
    if rule.max_age is None and rule.tags:
        return f"{scope}no-cache"
    return f"{scope}max-age={int(seconds(rule.max_age, found.age + found.fresh_for))}"
