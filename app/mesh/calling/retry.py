"""What came of an attempt, what that says of the peer and of the service, and what may follow: pure policy, no I/O.

kind         what happened                            the peer   the service  idempotent, keyed   any other
-----------  ---------------------------------------  ---------  -----------  ------------------  ----------
fine         a reply below 500 but those below; 501   ok         success      -                   -
unsent       refused, not resolved                    failed     failure      any peer (3)        any peer (3)
misdirected  421: another process has the address     rejected   -            another peer (3)    another (3)
overloaded   "unprocessed": it did nothing            rejected   -            another peer (1)    another (1)
limited      429 with Retry-After                     rejected   -            another peer (1)    -
cut          sent, then reset or closed               failed     failure      any peer (1)        -
slow         silent for longer than an attempt's time silent     failure      another peer (1)    -
busy         502, 503, 504                            failed     failure      another peer (1)    -
fault        any other 5xx                            failed     failure      -                   -
broken       not HTTP, a broken coding                failed     failure      -                   -
late         silent until the deadline                silent     failure      -                   -
starved      late or 504, with less time than usual   -          -            -                   -
unwanted     longer than we take                      ok         success      -                   -

A rejection is no failure: a service that sheds what is too much does its best, and a breaker that opened on it would
turn a partial overload into a whole outage. In brackets: how often, by default; each repetition is drawn from the
service's budget, also one that nobody has seen.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from app import context
from app.errors import BadReply, DeadlineExceeded, MeshError, PeerUnreachable
from app.mesh.balancing.pick import Outcome
from app.mesh.calling.exchange import Oversized

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class Again(Enum):
    """Which requests may be repeated."""

    NONE = "none"
    SAFE = "idempotent"
    ANY = "any"


class Verdict(Enum):
    """Where the next attempt may go."""

    STOP = "stop"
    OTHER_PEER = "other peer"
    ANY_PEER = "any peer"


class Kind(NamedTuple):
    """What came of an attempt: one line of the table.

    Args:
        peer: what the balancer hears, None for nothing.
        service: what the service's breaker hears: whether it succeeded, None for nothing.
        free: whether no peer can have begun with it, so that it counts against `Policy.unsent_retries`.
    """

    name: str
    peer: Outcome | None
    service: bool | None
    again: Again = Again.NONE
    where: Verdict = Verdict.STOP
    free: bool = False


_OK, _FAILED, _SILENT, _REJECTED = Outcome.OK, Outcome.FAILED, Outcome.SILENT, Outcome.REJECTED
_OTHER, _ANY_PEER = Verdict.OTHER_PEER, Verdict.ANY_PEER

FINE = Kind("fine", _OK, True)
UNSENT = Kind("unsent", _FAILED, False, Again.ANY, _ANY_PEER, free=True)
MISDIRECTED = Kind("misdirected", _REJECTED, None, Again.ANY, _OTHER, free=True)
OVERLOADED = Kind("overloaded", _REJECTED, None, Again.ANY, _OTHER)
LIMITED = Kind("limited", _REJECTED, None, Again.SAFE, _OTHER)
CUT = Kind("cut", _FAILED, False, Again.SAFE, _ANY_PEER)
SLOW = Kind("slow", _SILENT, False, Again.SAFE, _OTHER)
BUSY = Kind("busy", _FAILED, False, Again.SAFE, _OTHER)
FAULT = Kind("fault", _FAILED, False)
BROKEN = Kind("broken", _FAILED, False)
LATE = Kind("late", _SILENT, False)
STARVED = Kind("starved", None, None)
UNWANTED = Kind("unwanted", _OK, True)


@dataclass(frozen=True, slots=True)
class Policy:
    """Args:
    retries: attempts after the first, where the peer may have begun with the request.
    unsent_retries: the same where no peer can have; higher, because it costs next to nothing and gets past instances
        that have just been killed.
    """

    retries: int = 1
    unsent_retries: int = 3
    first_seconds: float = 0.025
    longest_seconds: float = 0.25


NEVER = Policy(retries=0, unsent_retries=0)
# For a call on behalf of a request that is itself a repetition: one layer repeats, not each. What nobody has seen
# multiplies no load, and may be repeated in every layer.
ONCE = Policy(retries=0)


def kind_of_reply(status: int, headers: Mapping[str, str], *, starved: bool) -> Kind:
    """What a reply of `status` means.

    Args:
        headers: by name in any case.
        starved: whether the peer had less time than such calls usually need.
    """
    if status < 500:
        return _kind_below_500(status, headers)
    if status == 501:
        return FINE
    if status == 503 and context.UNPROCESSED in headers:
        return OVERLOADED
    if status == 504 and starved:
        return STARVED
    return BUSY if status in {502, 503, 504} else FAULT


def _kind_below_500(status: int, headers: Mapping[str, str]) -> Kind:
    if status == 421:
        return MISDIRECTED
    if status == 429 and context.UNPROCESSED in headers:
        return OVERLOADED
    return LIMITED if status == 429 and "retry-after" in headers else FINE


def kind_of_error(error: MeshError, *, in_time: bool, starved: bool) -> Kind:
    """What an attempt's failure means.

    Args:
        in_time: whether the call's own deadline is still to come.
        starved: as for `kind_of_reply`.
    """
    if isinstance(error, PeerUnreachable):
        return CUT if error.sent else UNSENT
    if isinstance(error, DeadlineExceeded):
        if in_time:
            return SLOW
        return STARVED if starved else LATE
    if isinstance(error, Oversized):
        return UNWANTED
    return BROKEN if isinstance(error, BadReply) else FAULT


def judge(kind: Kind, policy: Policy, *, idempotent: bool, seen: int, unseen: int) -> Verdict:
    """Whether a call may be tried again, and where.

    Args:
        idempotent: by its method or by an Idempotency-Key.
        seen: repetitions so far that followed an attempt which its peer may have begun with.
        unseen: the others.
    """
    allowed = kind.again is Again.ANY or (kind.again is Again.SAFE and idempotent)
    left = policy.unsent_retries - unseen if kind.free else policy.retries - seen
    return kind.where if allowed and left > 0 else Verdict.STOP


def backoff_seconds(policy: Policy, number: int, rng: random.Random) -> float:
    """Full jitter (AWS, "Exponential Backoff And Jitter") under a ceiling that doubles: 25, 50, … 250 ms."""
    return rng.uniform(0.0, min(policy.longest_seconds, policy.first_seconds * 2.0 ** min(number - 1, 16)))
