"""The mesh client: calls a service by name.

One call goes down like this and nowhere else: `Mesh` (what is asked) → `extras`, if anything is asked for beyond the
call itself → `attempts` (at whom, how often) → `transport`.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypedDict, Unpack, cast

from app.context import Priority
from app.deadline import Deadlines
from app.errors import NoCredentials
from app.mesh.balancing.balancer import Balancer
from app.mesh.calling import explain as explanation
from app.mesh.calling.attempts import Attempts
from app.mesh.calling.call import Call
from app.mesh.calling.exchange import Transport
from app.mesh.calling.explain import Trace
from app.mesh.calling.extras import Extras, Fallback, Wishes
from app.mesh.calling.reply import Reply, StreamedReply
from app.mesh.calling.target import Targets
from app.mesh.observer import Observer
from app.mesh.registry.directory import Directory
from app.mesh.registry.membership import Membership
from app.mesh.registry.record import Instance
from app.settings import ClientSettings, ServiceCallSettings

_UNTUNED = ServiceCallSettings()


_AUTHORIZATION = "authorization"


class Credentials(Protocol):
    """Tokens by which peers know who calls."""

    def wanted(self, service: str) -> bool:
        """Whether calls to `service` carry one: all but those to whoever gives them."""

    def at_hand(self, service: str, *, as_user: bool) -> str | None:
        """A token for `service`, if it costs no waiting. Raises: NoCredentials."""

    async def fetch(self, service: str, *, as_user: bool) -> str:
        """A token for `service`. Raises: NoCredentials."""

    def refused(self, service: str, token: str) -> None:
        """`service` does not believe this token."""


class Options(TypedDict, total=False):
    """Keyword arguments that every verb hands to `Mesh.request`, which says what they mean."""

    content: bytes | AsyncIterator[bytes] | None
    headers: Mapping[str, str] | None
    timeout: float | None
    attempt_timeout: float | None
    idempotency_key: str | None
    priority: Priority | None
    sticky: str | None
    hedge: bool | None
    share: bool
    fallback: Fallback | None
    stale_seconds: float | None
    as_user: bool
    explain: Trace | None


class Mesh:
    """Calls services, and is one. Its parts are given to it; `app.mesh.open_mesh` puts them together.

    Args:
        membership: this process's own side of the registry.
        clock: monotonic seconds, the same clock as that of `app.context`.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        membership: Membership,
        balancer: Balancer,
        transport: Transport,
        deadlines: Deadlines,
        targets: Targets,
        settings: ClientSettings,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.directory, self.membership, self.balancer = directory, membership, balancer
        # Set by whoever opens the process's resources; None: calls carry what their callers give them.
        self.credentials: Credentials | None = None
        self._targets, self._clock = targets, clock
        self._attempts = Attempts(
            caller=membership.instance.service,
            directory=directory,
            balancer=balancer,
            targets=targets,
            transport=transport,
            deadlines=deadlines,
            max_reply_bytes=settings.max_reply_bytes,
            observer=observer,
            clock=clock,
            rng=rng or random.Random(),
        )
        self._extras = Extras(
            self._attempts,
            deadlines=deadlines,
            observer=observer,
            clock=clock,
            max_stale_bytes=settings.max_stale_bytes,
        )
        # Services whose calls ask for more than themselves even if nobody says so.
        self._tuned = {name: own for name, own in settings.services.items() if own.hedge or own.stale_seconds}

    def __repr__(self) -> str:
        return f"<Mesh {self.instance.service}, {self.membership!r}, {self.directory!r}, {self.balancer!r}>"

    @property
    def instance(self) -> Instance:
        """This process's own record, as it announces itself."""
        return self.membership.instance

    # Plain functions that return a coroutine: one of their own would be resumed with it, at every step.

    def get(self, service: str, path: str, **options: Unpack[Options]) -> Coroutine[Any, Any, Reply]:
        return self.request("GET", service, path, **options)

    def post(
        self, service: str, path: str, *, json: Any = None, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, Reply]:
        return self.request("POST", service, path, json=json, **options)

    def put(
        self, service: str, path: str, *, json: Any = None, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, Reply]:
        return self.request("PUT", service, path, json=json, **options)

    def patch(
        self, service: str, path: str, *, json: Any = None, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, Reply]:
        return self.request("PATCH", service, path, json=json, **options)

    def delete(
        self, service: str, path: str, *, json: Any = None, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, Reply]:
        return self.request("DELETE", service, path, json=json, **options)

    def request(
        self,
        method: str,
        service: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        attempt_timeout: float | None = None,
        idempotency_key: str | None = None,
        priority: Priority | None = None,
        sticky: str | None = None,
        hedge: bool | None = None,
        share: bool = False,
        fallback: Fallback | None = None,
        stale_seconds: float | None = None,
        as_user: bool = False,
        explain: Trace | None = None,
    ) -> Coroutine[Any, Any, Reply]:
        """Call `service` and read its whole reply, whatever its status.

        Args:
            path: starts with a slash; may carry a query.
            json: sent as JSON, unless None.
            content: sent as it is, a stream piece by piece and only once; without a content type unless `headers`
                has one.
            timeout: seconds for the whole call with its retries; the current request's deadline may shorten it.
            attempt_timeout: seconds of silence after which an idempotent call asks another peer, if there is one and
                the retry budget has room; None for the longer of the settings' and three times what 99 of 100 calls
                take, ``inf`` for never.
            idempotency_key: makes any method safe to try again, if the service honours Idempotency-Key.
            priority: of this call, in the place of the current request's: who is shed first when a peer is too busy.
            sticky: what has the same key goes to the same instance, as long as that is there.
            hedge: whether a second peer is asked when the first takes longer than 99 of 100 calls do; only what is
                idempotent, and out of the retry budget. None for what the settings say of the service and path.
            share: whether a GET joins one that is under way to the same path with the same headers and context.
            fallback: gives a reply in the place of a failure (a `MeshError`, which it is given, or 500, 502, 503, 504).
            stale_seconds: the last good reply to the same GET stands in for a failure if it is no older; before
                `fallback`. None for what the settings say of the service.
            as_user: call in the name of the user whose request is being served here, by token exchange (RFC 8693), and
                not in our own. With an Authorization header of the caller's, neither is done.
            explain: is told how the answer came about.

        Raises:
            NoCredentials: the issuer gives us no token for `service`.
            NoInstance: nobody is registered and ready.
            CircuitOpen: rejected at once: the service has failed too often.
            PeerUnreachable: refused or cut, and it was not safe, or no use, to try again.
            DeadlineExceeded: the time is over, or was before anything was done.
            BadReply: not HTTP, or longer than ``max_reply_bytes``.
            BadInput: `path` does not start with a slash, or has control characters.
        """
        call = Call(
            method,
            service,
            path,
            headers=headers,
            content=content,
            json=json,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            idempotency_key=idempotency_key,
            priority=priority,
            sticky=sticky,
            trace=explain,
        )
        wishes = None
        if hedge or share or fallback is not None or stale_seconds or service in self._tuned:
            wishes = self._wished(call, hedge, share, fallback, stale_seconds)
        if self._lacks_token(call):
            return self._run_authorized(call, wishes, as_user=as_user)
        return self._run(call, wishes)

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
        attempt_timeout: float | None = None,
        priority: Priority | None = None,
        sticky: str | None = None,
        as_user: bool = False,
        explain: Trace | None = None,
    ) -> AsyncIterator[StreamedReply]:
        """Call `service` and hand its reply through as it comes: not decoded, not capped, duplicates kept.

        Args:
            timeout: seconds until the reply's head has come, and from then on for each silence of its body.

        Others, and raises: as `request`; and whatever the iteration of `content` raises, unchanged.
        """
        call = Call(
            method,
            service,
            path,
            headers=list(headers),
            content=content,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            priority=priority,
            sticky=sticky,
            trace=explain,
        )
        token = await self._authorize(call, as_user=as_user) if self._lacks_token(call) else None
        pick, exchange = await self._attempts.open(call)
        self._note_refusal(call, exchange.status, token)
        idle_seconds = call.deadline - call.started_at
        try:
            yield StreamedReply(exchange.status, list(exchange.raw_headers), pick.peer.id, exchange, idle_seconds)
        finally:
            exchange.close()
            pick.release()

    def _run(self, call: Call, wishes: Wishes | None) -> Coroutine[Any, Any, Reply]:
        return self._attempts.run(call) if wishes is None else self._extras.run(call, wishes)

    async def _run_authorized(self, call: Call, wishes: Wishes | None, *, as_user: bool) -> Reply:
        try:
            token = await self._authorize(call, as_user=as_user)
        except NoCredentials as error:
            if wishes is None:
                raise
            return await self._extras.run(call, wishes, failed=error)
        reply = await self._run(call, wishes)
        self._note_refusal(call, reply.status, token)
        return reply

    def _note_refusal(self, call: Call, status: int, token: str | None) -> None:
        if status == 401 and token is not None and self.credentials is not None:
            self.credentials.refused(call.service, token)

    def _lacks_token(self, call: Call) -> bool:
        return (
            self.credentials is not None
            and self.credentials.wanted(call.service)
            and not _has_authorization(call.headers)
        )

    async def _authorize(self, call: Call, *, as_user: bool) -> str:
        """Put a token of ours, or in the user's name, into the call's headers. Raises: NoCredentials."""
        credentials = cast(Credentials, self.credentials)
        call.own_token = not as_user
        token = credentials.at_hand(call.service, as_user=as_user)
        if token is None:
            token = await credentials.fetch(call.service, as_user=as_user)
        carried = (_AUTHORIZATION, f"Bearer {token}")
        given = call.headers or {}
        call.headers = [*given, carried] if isinstance(given, list) else {**given, carried[0]: carried[1]}
        return token

    def _wished(
        self, call: Call, hedge: bool | None, share: bool, fallback: Fallback | None, stale_seconds: float | None
    ) -> Wishes:
        tuned = self._tuned.get(call.service, _UNTUNED)
        return Wishes(
            hedge=tuned.hedges(call.path) if hedge is None else hedge,
            share=share,
            fallback=fallback,
            stale_seconds=tuned.stale_seconds if stale_seconds is None else stale_seconds,
        )

    def describe(self) -> dict[str, Any]:
        """What this process's calls stand at, as plain values for people and for JSON."""
        now = self._clock()
        services = {
            target.name: target.describe(now) | {"peers": explanation.plain(self.balancer.explain(target.name))}
            for target in self._targets
        }
        return {
            "services": services,
            "in_flight": self.balancer.in_flight,
            "flights": len(self._extras.flights),
            "stale_replies": len(self._extras.shelf),
        }


def _has_authorization(headers: Any) -> bool:
    names = (name for name, _ in headers) if isinstance(headers, list) else headers or ()
    return any(name.lower() == _AUTHORIZATION for name in names)
