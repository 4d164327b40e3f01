"""The mesh client: calls a service by name; chooses the instance, keeps the deadline, tries once more if it is safe.

One call goes down like this and nowhere else: deadline → pick → transport → settle → judge (→ back-off → pick …).
It reads the directory's dictionaries and never waits for the registry.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import orjson

from app import context
from app.deadline import Deadlines
from app.errors import DeadlineExceeded, MeshError, NoInstance
from app.mesh.balancing.balancer import Balancer, Pick
from app.mesh.calling import retry
from app.mesh.calling.reply import Reply, ReplyHeaders, StreamedReply
from app.mesh.calling.retry import Budget, Verdict
from app.mesh.calling.transport import Body, Exchange, Headers, Request, Transport
from app.mesh.observer import Attempt, Observer
from app.mesh.registry.directory import Directory
from app.mesh.registry.presence import Presence
from app.mesh.registry.record import Instance
from app.settings import ClientSettings

T = TypeVar("T")

_KEY = "idempotency-key"
_RETRY_LATER_SECONDS = 1.0
# Set anew on every attempt: what a caller passes on under these names is dropped.
_PER_ATTEMPT = frozenset({context.TIMEOUT_MS, context.CALLER, context.ATTEMPT})


class Options(TypedDict, total=False):
    """Keyword arguments that every verb hands to `Mesh.request`, which says what they mean."""

    content: bytes | None
    headers: Mapping[str, str] | None
    timeout: float | None
    idempotency_key: str | None


class _Call:
    """One call while it lasts: what stays the same over its attempts, and what they have tried."""

    __slots__ = (
        "budget",
        "content",
        "deadline",
        "headers",
        "idempotent",
        "method",
        "number",
        "path",
        "service",
        "tried",
    )

    def __init__(
        self,
        service: str,
        method: str,
        path: str,
        *,
        headers: Headers,
        content: bytes | Body | None,
        deadline: float,
        idempotent: bool,
        budget: Budget,
    ) -> None:
        self.service, self.method, self.path = service, method, path
        self.headers, self.content = headers, content
        self.deadline, self.idempotent, self.budget = deadline, idempotent, budget
        self.number = 1
        self.tried: tuple[str, ...] = ()

    @property
    def repeatable(self) -> bool:
        """A body that comes piece by piece can be sent only once."""
        return not (isinstance(self.content, Body) and self.content.begun)


class Mesh:
    """Calls services, and is one. Its parts are given to it; `app.mesh.open_mesh` puts them together.

    Args:
        presence: this process's own registration, not yet entered.
        clock: monotonic seconds, the same clock as that of `app.context`.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        presence: Presence,
        balancer: Balancer,
        transport: Transport,
        deadlines: Deadlines,
        settings: ClientSettings,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.directory = directory
        self.balancer = balancer
        self._presence, self._registered = presence, False
        self._transport, self._deadlines = transport, deadlines
        self._settings, self._observer = settings, observer
        self._clock, self._rng = clock, rng or random.Random()
        self._policy = retry.Policy(retries=settings.retries)
        self._caller = presence.instance.service
        self._budgets: dict[str, Budget] = {}

    def __repr__(self) -> str:
        return f"<Mesh {self._caller}, {self._presence!r}, {self.directory!r}, {self.balancer!r}>"

    # ------------------------------------------------------------------------------------- this process

    @property
    def instance(self) -> Instance:
        """This process's own record, as it announces itself."""
        return self._presence.instance

    async def register(self) -> None:
        """Announce this process as ready, and keep on doing so; a Redis that is away is no error."""
        if self._registered:
            return
        self._registered = True
        self._presence.set_state("ready")
        await self._presence.__aenter__()

    def set_state(self, state: Literal["ready", "draining"]) -> None:
        """Change the announced state; peers hear of it at once."""
        self._presence.set_state(state)

    async def leave(self) -> None:
        """Take this process out of the registry, if it was registered."""
        if self._registered:
            self._registered = False
            await self._presence.__aexit__(None, None, None)

    # ------------------------------------------------------------------------------------- calls

    # Plain functions that return `request`'s coroutine: one of their own would be resumed with it, at every step.

    def get(
        self, service: str, path: str, *, headers: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> Awaitable[Reply]:
        return self.request("GET", service, path, headers=headers, timeout=timeout)

    def post(self, service: str, path: str, *, json: Any = None, **options: Unpack[Options]) -> Awaitable[Reply]:
        return self.request("POST", service, path, json=json, **options)

    def put(self, service: str, path: str, *, json: Any = None, **options: Unpack[Options]) -> Awaitable[Reply]:
        return self.request("PUT", service, path, json=json, **options)

    def patch(self, service: str, path: str, *, json: Any = None, **options: Unpack[Options]) -> Awaitable[Reply]:
        return self.request("PATCH", service, path, json=json, **options)

    def delete(self, service: str, path: str, *, json: Any = None, **options: Unpack[Options]) -> Awaitable[Reply]:
        return self.request("DELETE", service, path, json=json, **options)

    async def request(
        self,
        method: str,
        service: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> Reply:
        """Call `service` and read its whole reply, whatever its status.

        Args:
            path: starts with a slash; may carry a query.
            json: sent as JSON, unless None.
            content: sent as it is; without a content type unless `headers` has one.
            timeout: seconds for the whole call with its retries; the current request's deadline may shorten it.
            idempotency_key: makes any method safe to try again, if the service honours Idempotency-Key.

        Raises:
            NoInstance: nobody is registered and ready.
            PeerUnreachable: refused or cut, and it was not safe, or no use, to try again.
            DeadlineExceeded: the time is over, or was before anything was done.
            BadReply: not HTTP, or longer than ``max_reply_bytes``.
            BadInput: `path` does not start with a slash, or has control characters.
        """
        sent = {name.lower(): value for name, value in headers.items()} if headers else {}
        if json is not None:
            content = orjson.dumps(json)
            sent.setdefault("content-type", "application/json")
        if idempotency_key is not None:
            sent[_KEY] = idempotency_key
        call = self._begin(service, method, path, sent, content, timeout)
        while True:
            with self._pick(call) as pick:
                left = call.deadline - self._clock()
                result: Reply | MeshError
                # Here, and not in a coroutine of its own: each layer of them is resumed at each step of the exchange.
                try:
                    with self._deadlines.within(left):
                        exchange = await self._transport.send(self._outgoing(call, pick.peer, left))
                        body = await exchange.read(max_bytes=self._settings.max_reply_bytes)
                    result = Reply(exchange.status, ReplyHeaders(exchange.headers), body, service)
                except TimeoutError:
                    result = _too_late(call, pick)
                except MeshError as error:
                    result = error
                verdict = self._conclude(call, pick, result)
            if verdict is Verdict.STOP:
                return _value(result)
            await self._back_off(call)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        service: str,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        content: AsyncIterator[bytes] | bytes | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[StreamedReply]:
        """Call `service` and hand its reply through as it comes: not decoded, not capped, duplicates kept.

        Args:
            timeout: seconds until the reply's head has come, and from then on for each silence of its body.

        Raises:
            As `request`; and whatever the iteration of `content` raises, unchanged.
        """
        sent = [(name.lower(), value) for name, value in headers]
        body = content if content is None or isinstance(content, bytes) else Body(content)
        call = self._begin(service, method, path, sent, body, timeout)
        idle_seconds = call.deadline - self._clock()
        pick, exchange = await self._open(call)
        try:
            yield StreamedReply(exchange.status, list(exchange.raw_headers), pick.peer.id, exchange, idle_seconds)
        finally:
            exchange.close()
            pick.release()

    # ------------------------------------------------------------------------------------- one call

    def _begin(
        self,
        service: str,
        method: str,
        path: str,
        headers: Headers,
        content: bytes | Body | None,
        timeout: float | None,
    ) -> _Call:
        """Raises: DeadlineExceeded: there is no time left to do anything in."""
        now = self._clock()
        deadline = now + (self._settings.timeout_seconds if timeout is None else timeout)
        current = context.current()
        if current is not None:
            deadline = min(deadline, current.deadline - context.HOP_RESERVE_SECONDS)
        if deadline <= now:
            raise DeadlineExceeded(f"{service}: no time was left to call it")
        budget = self._budgets.get(service)
        if budget is None:
            budget = self._budgets[service] = Budget()
        budget.deposit(now)
        return _Call(
            service,
            method,
            path,
            headers=_with_context(headers, current, now),
            content=content,
            deadline=deadline,
            idempotent=method in retry.IDEMPOTENT_METHODS or _has_key(headers),
            budget=budget,
        )

    def _pick(self, call: _Call) -> Pick:
        """Raises: NoInstance: nobody is registered and ready."""
        peers = self.directory.ready(call.service)
        # The peer that was tried already is better than none: who is here by `Verdict.ANY_PEER` may go there again.
        pick = self.balancer.pick(peers, call.tried) or self.balancer.pick(peers)
        if pick is None:
            raise NoInstance(f"{call.service}: no instance is registered and ready", retry_after=_RETRY_LATER_SECONDS)
        return pick

    async def _open(self, call: _Call) -> tuple[Pick, Exchange]:
        """The head of a reply that is worth handing through; the pick stays in flight until its caller releases it."""
        while True:
            with self._pick(call) as pick:
                result = await self._head(call, pick)
                verdict = self._conclude(call, pick, result)
                if verdict is Verdict.STOP:
                    exchange = _value(result)
                    pick.keep()
                    return pick, exchange
                if not isinstance(result, MeshError):
                    result.close()
            await self._back_off(call)

    async def _head(self, call: _Call, pick: Pick) -> Exchange | MeshError:
        left = call.deadline - self._clock()
        try:
            with self._deadlines.within(left):
                return await self._transport.send(self._outgoing(call, pick.peer, left))
        except TimeoutError:
            return _too_late(call, pick)
        except MeshError as error:
            return error

    def _outgoing(self, call: _Call, peer: Instance, left: float) -> Request:
        headers = call.headers
        timeout_ms, number = str(max(0, int(left * 1000))), str(call.number)
        if isinstance(headers, dict):
            headers[context.CALLER] = self._caller
            headers[context.ATTEMPT] = number
            headers[context.TIMEOUT_MS] = timeout_ms
            return Request(peer, call.method, call.path, headers, call.content)
        own = [(context.CALLER, self._caller), (context.ATTEMPT, number), (context.TIMEOUT_MS, timeout_ms)]
        return Request(peer, call.method, call.path, [*headers, *own], call.content)

    def _conclude(self, call: _Call, pick: Pick, result: Reply | Exchange | MeshError) -> Verdict:
        """Settle the attempt and decide what follows it; if another one does, it is already paid for."""
        error, status = (result, 0) if isinstance(result, MeshError) else (None, result.status)
        failed = error is not None or status >= 500 or status == 429
        seconds = pick.settle(failed=failed)
        verdict = self._verdict(call, pick, result) if failed else Verdict.STOP
        self._observer.attempt(
            Attempt(
                call.service, pick.peer.id, call.method, call.number, status, error.code if error else "", seconds,
                verdict is not Verdict.STOP,
            )
        )  # fmt: skip
        if verdict is not Verdict.STOP:
            call.tried += (pick.peer.id,)
            call.number += 1
        return verdict

    def _verdict(self, call: _Call, pick: Pick, result: Reply | Exchange | MeshError) -> Verdict:
        error = result if isinstance(result, MeshError) else None
        current = context.current()
        verdict = retry.judge(
            self._policy if current is None or current.attempt == 1 else retry.ONCE,
            number=call.number,
            idempotent=call.idempotent,
            error=error,
            status=0 if isinstance(result, MeshError) else result.status,
            later=not isinstance(result, MeshError) and "retry-after" in result.headers,
        )
        if verdict is Verdict.STOP or not call.repeatable:
            return Verdict.STOP
        if verdict is Verdict.OTHER_PEER and not self._has_other(call, pick.peer.id):
            return Verdict.STOP
        if call.deadline <= self._clock() or not call.budget.withdraw(self._clock()):
            return Verdict.STOP
        return verdict

    def _has_other(self, call: _Call, last: str) -> bool:
        return any(peer.id != last and peer.id not in call.tried for peer in self.directory.ready(call.service))

    async def _back_off(self, call: _Call) -> None:
        seconds = retry.backoff_seconds(self._policy, call.number - 1, self._rng)
        # Half of what is left at most: the attempt that follows needs time too.
        await asyncio.sleep(max(0.0, min(seconds, (call.deadline - self._clock()) / 2)))


def _value(result: T | MeshError) -> T:
    if isinstance(result, MeshError):
        raise result
    return result


def _too_late(call: _Call, pick: Pick) -> DeadlineExceeded:
    return DeadlineExceeded(f"{call.service}, instance {pick.peer.id}: no reply in time (attempt {call.number})")


def _has_key(headers: Headers) -> bool:
    if isinstance(headers, dict):
        return _KEY in headers
    return any(name == _KEY for name, _ in headers)


def _with_context(headers: Headers, current: context.Context | None, now: float) -> Headers:
    """`headers` with those of the current request; names are lower-case already."""
    carried = current.outbound_headers(now) if current is not None else {}
    if isinstance(headers, dict):
        headers.update(carried)
        if context.REQUEST_ID not in headers:
            headers[context.REQUEST_ID] = context.new_request_id()
        return headers
    kept = [(name, value) for name, value in headers if name not in carried and name not in _PER_ATTEMPT]
    kept.extend((name, value) for name, value in carried.items() if name not in _PER_ATTEMPT)
    if all(name != context.REQUEST_ID for name, _ in kept):
        kept.append((context.REQUEST_ID, context.new_request_id()))
    return kept
