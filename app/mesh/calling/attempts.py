"""One call's attempts: permit → pick → send → settle → judge (→ back-off → pick …), down here and nowhere else.

It reads the directory's dictionaries and never waits for the registry.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

from app import context, telemetry
from app.deadline import Deadlines, Reprieve
from app.errors import CircuitOpen, DeadlineExceeded, MeshError, NoInstance, PeerUnreachable
from app.mesh.balancing.balancer import Balancer
from app.mesh.balancing.breaker import Permit
from app.mesh.balancing.pick import Pick
from app.mesh.calling import explain, headers, retry
from app.mesh.calling.call import Call
from app.mesh.calling.exchange import Exchange, Request, Transport
from app.mesh.calling.reply import Reply, ReplyHeaders
from app.mesh.calling.retry import Kind, Verdict
from app.mesh.calling.target import Targets
from app.mesh.observer import Attempt, Decision, Observer
from app.mesh.registry.directory import Directory

Answer = TypeVar("Answer", Reply, Exchange)

_log = telemetry.log("mesh.calling")

_RETRY_LATER_SECONDS = 1.0
# Peers that say that they leave, or that an address is not theirs: the registry will know better by then.
_AVOID_SECONDS = 5.0


class Attempts:
    """Carries calls out.

    Args:
        caller: what this process is called, for its peers.
        clock: monotonic seconds, the same clock as that of `app.context`.
    """

    def __init__(
        self,
        *,
        caller: str,
        directory: Directory,
        balancer: Balancer,
        targets: Targets,
        transport: Transport,
        deadlines: Deadlines,
        max_reply_bytes: int,
        observer: Observer,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._caller, self._directory, self._balancer, self._targets = caller, directory, balancer, targets
        self._transport, self._deadlines, self._max_reply_bytes = transport, deadlines, max_reply_bytes
        self._observer, self._clock, self._rng = observer, clock, rng

    def begin(self, call: Call) -> None:
        """Raises: DeadlineExceeded: there is no time left to do anything in."""
        call.begin(self._targets.of(call.service), context.current(), self._clock())
        if call.trace is not None:
            self._set_the_scene(call, call.trace)

    async def run(self, call: Call) -> Reply:
        """The whole reply, whatever its status. Raises: as `Mesh.request`."""
        with self._permit(call) as permit:
            while True:
                with self._pick(call) as pick:
                    result: Reply | MeshError
                    exchange = None
                    # Here, and not in a coroutine of its own: each layer of them is resumed at each step.
                    try:
                        with self._deadlines.within(call.allowed, self._reprieve(call, pick)) as bound:
                            exchange = await self._transport.send(self._outgoing(call))
                            body = exchange.at_hand(max_bytes=self._max_reply_bytes)
                            if body is None:
                                bound.prolong(call.deadline - self._clock())
                                body = await exchange.read(max_bytes=self._max_reply_bytes)
                        result = Reply(exchange.status, ReplyHeaders(exchange.headers), body, call.service)
                    except TimeoutError:
                        result = _too_late(call)
                    except MeshError as error:
                        result = error
                    except asyncio.CancelledError:
                        call.report(self._clock(), outcome="cancelled", kind="cancelled", then="nothing")
                        raise
                    if not self._again(call, pick, permit, result, exchange):
                        return self._value(call, result)
                await self._back_off(call)

    async def open(self, call: Call) -> tuple[Pick, Exchange]:
        """The head of a reply that is worth handing through; the pick stays in flight until its caller releases it."""
        with self._permit(call) as permit:
            while True:
                with self._pick(call) as pick:
                    result = await self._head(call, pick)
                    exchange = None if isinstance(result, MeshError) else result
                    if not self._again(call, pick, permit, result, exchange):
                        head = self._value(call, result)
                        pick.keep()
                        return pick, head
                    if exchange is not None:
                        exchange.close()
                await self._back_off(call)

    async def _head(self, call: Call, pick: Pick) -> Exchange | MeshError:
        try:
            with self._deadlines.within(call.allowed, self._reprieve(call, pick)):
                return await self._transport.send(self._outgoing(call))
        except TimeoutError:
            return _too_late(call)
        except MeshError as error:
            return error

    # ------------------------------------------------------------------------------------- before an attempt

    def _permit(self, call: Call) -> Permit:
        """Begins the call if nobody has.

        Raises:
            CircuitOpen: the service has failed too often; nothing is sent.
            DeadlineExceeded: there is no time left to do anything in.
        """
        if not call.started_at:
            self.begin(call)
        if call.number == 1:
            call.target.budget.deposit(call.started_at)
        try:
            return call.target.breaker.permit()
        except CircuitOpen as error:
            self._observer.decision(Decision("breaker", call.service, "rejected"))
            raise self._told(call, error) from None

    def _pick(self, call: Call) -> Pick:
        """Raises: NoInstance: nobody is registered and ready."""
        pick = self._balancer.pick(call.service, tried=call.tried, sandbox=call.sandbox, key=call.sticky)
        if pick is None:
            error = NoInstance(f"{call.service}: no instance is registered and ready", retry_after=_RETRY_LATER_SECONDS)
            raise self._told(call, error)
        call.aim(pick.peer, pick.started_at)
        if call.may_be_cut_short(pick.started_at) and self.has_others(call):
            call.cut_short()
        return pick

    def _reprieve(self, call: Call, pick: Pick) -> Reprieve | None:
        """What an attempt that was cut short gets when its time is over, and it is no use to ask somebody else.

        A peer that has answered others meanwhile is not silent but has a queue: to stand in another one as well would
        make both longer. And where nobody else may be asked after all, as when others have spent the budget, a burst of
        slow answers must not become errors.
        """
        if call.allowed == call.left:
            return None

        def more_seconds() -> float:
            now = self._clock()
            if not pick.others_were_answered and self.has_others(call) and call.target.budget.withdraw(now):
                call.paid = True
                return 0.0
            call.allowed = call.left
            return call.deadline - now

        return more_seconds

    def has_others(self, call: Call) -> bool:
        """Whether there is somebody whom this call has not tried, and who does well."""
        tried = (*call.tried, call.peer.id)
        return self._balancer.has_other(call.service, tried=tried, sandbox=call.sandbox)

    def _outgoing(self, call: Call) -> Request:
        sent = headers.of_attempt(
            call.headers, caller=self._caller, target=call.peer.id, number=call.number, seconds=call.left
        )
        return Request(call.peer, call.method, call.path, sent, call.content)

    # ------------------------------------------------------------------------------------- after an attempt

    def _again(
        self, call: Call, pick: Pick, permit: Permit, result: Reply | Exchange | MeshError, exchange: Exchange | None
    ) -> bool:
        """Settle the attempt and decide what follows it; if another one does, it is already paid for."""
        now = self._clock()
        kind = self._kind(call, result, exchange, now)
        seconds = pick.settle(kind.peer)
        if kind is retry.FINE:
            # Of answers only: were the silent ones counted, a service that hangs would soon hang as long as usual.
            call.target.latencies.record(seconds, now)
        if exchange is not None and context.DRAINING in exchange.headers:
            self._balancer.avoid(call.peer.id, _AVOID_SECONDS, "draining")
        verdict = Verdict.STOP if kind is retry.FINE else self._verdict(call, kind, now)
        self._report(call, kind, verdict, result, now, seconds)
        if verdict is not Verdict.STOP:
            call.repeat(free=kind.free)
            return True
        if kind.service:
            permit.succeed(now - call.started_at)
        elif kind.service is not None:
            permit.fail(now - call.started_at)
        return False

    def _kind(self, call: Call, result: Reply | Exchange | MeshError, exchange: Exchange | None, now: float) -> Kind:
        if isinstance(result, MeshError):
            cut_short = call.allowed < call.left and now < call.deadline
            return retry.kind_of_error(result, in_time=cut_short, starved=call.target.is_little(call.allowed))
        if result.status < 400 or exchange is None:
            return retry.FINE
        kind = retry.kind_of_reply(result.status, exchange.headers, starved=call.target.is_little(call.allowed))
        if kind is retry.MISDIRECTED:
            self._balancer.avoid(call.peer.id, _AVOID_SECONDS, "misdirected")
            exchange.close()
        return kind

    def _verdict(self, call: Call, kind: Kind, now: float) -> Verdict:
        verdict = retry.judge(kind, call.policy, idempotent=call.idempotent, seen=call.seen, unseen=call.unseen)
        if verdict is Verdict.STOP or not call.repeatable or call.deadline <= now:
            return Verdict.STOP
        paid, call.paid = call.paid, False
        # Who has left a peer for another one goes there, whatever others that left theirs have made of it meanwhile.
        if verdict is Verdict.OTHER_PEER and not paid and not self.has_others(call):
            return Verdict.STOP
        if not (paid or call.target.budget.withdraw(now)):
            self._observer.decision(Decision("retry", call.service, "no_budget"))
            return Verdict.STOP
        return verdict

    def _report(
        self,
        call: Call,
        kind: Kind,
        verdict: Verdict,
        result: Reply | Exchange | MeshError,
        now: float,
        seconds: float,
    ) -> None:
        error, status = (result.code, 0) if isinstance(result, MeshError) else ("", result.status)
        self._observer.attempt(
            Attempt(
                call.service,
                call.peer.id,
                call.method,
                call.number,
                status,
                error,
                seconds,
                verdict is not Verdict.STOP,
            )
        )
        if call.trace is not None:
            then = "answer" if verdict is Verdict.STOP else verdict.value
            call.report(now, outcome=error or f"status {status}", kind=kind.name, then=then)

    async def _back_off(self, call: Call) -> None:
        seconds = retry.backoff_seconds(call.policy, call.number - 1, self._rng)
        # Half of what is left at most: the attempt that follows needs time too.
        await asyncio.sleep(max(0.0, min(seconds, (call.deadline - self._clock()) / 2)))

    # ------------------------------------------------------------------------------------- the end of a call

    def _value(self, call: Call, result: Answer | MeshError) -> Answer:
        """Raises: MeshError: that is what `result` is; or it comes from somebody else than we meant."""
        if isinstance(result, MeshError):
            raise self._told(call, result)
        if result.status == 421:
            raise self._told(call, PeerUnreachable(f"{_who(call)}: its address is somebody else's now", sent=False))
        if call.trace is not None:
            call.trace.ended(self._clock(), f"status {result.status}")
        return result

    def _told(self, call: Call, error: MeshError) -> MeshError:
        """`error`, with what its reader would ask next; what a stranger may read of it stays short."""
        now = self._clock()
        left = max(0.0, call.deadline - now)
        story = f"{error.detail} (attempt {call.number}, breaker {call.target.breaker.state}, {left:.2f} s left)"
        error.args, error.detail = (story,), f"{call.service}: {error.title.lower()}"
        tell = _log.debug if isinstance(error, CircuitOpen) else _log.info
        tell("call failed", peer_service=call.service, method=call.method, code=error.code, story=story)
        if call.trace is not None:
            call.trace.ended(now, error.code)
        return error

    def _set_the_scene(self, call: Call, trace: explain.Trace) -> None:
        now, directory = self._clock(), self._directory
        position, age = directory.position, directory.age_seconds
        trace.began(
            call.started_at,
            method=call.method,
            service=call.service,
            path=call.path,
            registry={
                "healthy": directory.healthy,
                "age_seconds": None if age is None else round(age, 3),
                "epoch": position.epoch,
                "seq": position.seq,
            },
            candidates=explain.plain(self._balancer.explain(call.service, sandbox=call.sandbox)),
            breaker=call.target.breaker.story(now),
            repetitions_left=call.target.budget.left(now),
            allowed_seconds=call.deadline - call.started_at,
        )


def _too_late(call: Call) -> DeadlineExceeded:
    return DeadlineExceeded(f"{_who(call)}: no reply within {call.allowed:.2f} s")


def _who(call: Call) -> str:
    return f"{call.service}, instance {call.peer.id}"
