"""The table of what comes of an attempt, row by row."""

from __future__ import annotations

import random

import pytest

from app.errors import BadReply, CircuitOpen, DeadlineExceeded, MeshError, NoInstance, PeerUnreachable
from app.mesh.balancing.pick import Outcome
from app.mesh.calling import retry
from app.mesh.calling.exchange import Oversized
from app.mesh.calling.retry import (
    BROKEN,
    BUSY,
    CUT,
    FAULT,
    FINE,
    LATE,
    LIMITED,
    MISDIRECTED,
    NEVER,
    ONCE,
    OVERLOADED,
    SLOW,
    STARVED,
    UNSENT,
    UNWANTED,
    Kind,
    Policy,
    Verdict,
)  # fmt: skip

POLICY = Policy()
STOP, OTHER, ANY = Verdict.STOP, Verdict.OTHER_PEER, Verdict.ANY_PEER
OK, FAILED, SILENT, REJECTED = Outcome.OK, Outcome.FAILED, Outcome.SILENT, Outcome.REJECTED


@pytest.mark.parametrize(
    ("kind", "idempotent", "other", "peer", "service"),
    [
        (FINE, STOP, STOP, OK, True),
        (UNSENT, ANY, ANY, FAILED, False),
        (MISDIRECTED, OTHER, OTHER, REJECTED, None),
        (OVERLOADED, OTHER, OTHER, REJECTED, None),
        (LIMITED, OTHER, STOP, REJECTED, None),
        (CUT, ANY, STOP, FAILED, False),
        (SLOW, OTHER, STOP, SILENT, False),
        (BUSY, OTHER, STOP, FAILED, False),
        (FAULT, STOP, STOP, FAILED, False),
        (BROKEN, STOP, STOP, FAILED, False),
        (LATE, STOP, STOP, SILENT, False),
        (STARVED, STOP, STOP, None, None),
        (UNWANTED, STOP, STOP, OK, True),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else "",
)
def test_the_table(kind: Kind, idempotent: Verdict, other: Verdict, peer: Outcome | None, service: bool | None) -> None:
    assert retry.judge(kind, POLICY, idempotent=True, seen=0, unseen=0) is idempotent
    assert retry.judge(kind, POLICY, idempotent=False, seen=0, unseen=0) is other
    assert (kind.peer, kind.service) == (peer, service)
    assert retry.judge(kind, NEVER, idempotent=True, seen=0, unseen=0) is STOP


@pytest.mark.parametrize(
    ("status", "headers", "starved", "kind"),
    [
        (200, {}, False, FINE),
        (404, {"retry-after": "1"}, False, FINE),
        (409, {}, False, FINE),
        (421, {}, False, MISDIRECTED),
        (429, {}, False, FINE),
        (429, {"retry-after": "1"}, False, LIMITED),
        (429, {"x-mesh-unprocessed": "overloaded"}, False, OVERLOADED),
        (500, {}, False, FAULT),
        (500, {"x-mesh-unprocessed": "overloaded"}, False, FAULT),
        (501, {}, False, FINE),
        (502, {}, False, BUSY),
        (503, {}, False, BUSY),
        (503, {"x-mesh-unprocessed": "overloaded"}, False, OVERLOADED),
        (504, {}, False, BUSY),
        (504, {}, True, STARVED),
        (503, {}, True, BUSY),
        (507, {}, False, FAULT),
    ],
)
def test_what_a_reply_means(status: int, headers: dict[str, str], starved: bool, kind: Kind) -> None:
    assert retry.kind_of_reply(status, headers, starved=starved) is kind


@pytest.mark.parametrize(
    ("error", "in_time", "starved", "kind"),
    [
        (PeerUnreachable(sent=False), True, False, UNSENT),
        (PeerUnreachable(sent=True), True, False, CUT),
        (DeadlineExceeded(), True, False, SLOW),
        (DeadlineExceeded(), False, False, LATE),
        (DeadlineExceeded(), False, True, STARVED),
        (BadReply(), True, False, BROKEN),
        (Oversized(), True, False, UNWANTED),
        (NoInstance(), True, False, FAULT),
        (CircuitOpen(), True, False, FAULT),
    ],
)
def test_what_a_failure_means(error: MeshError, in_time: bool, starved: bool, kind: Kind) -> None:
    assert retry.kind_of_error(error, in_time=in_time, starved=starved) is kind


def test_what_was_seen_and_what_was_not_are_counted_apart() -> None:
    """Three that refuse must not use up the one repetition of a request that was cut."""
    assert retry.judge(CUT, POLICY, idempotent=True, seen=0, unseen=3) is ANY
    assert retry.judge(CUT, POLICY, idempotent=True, seen=1, unseen=0) is STOP
    assert retry.judge(UNSENT, POLICY, idempotent=True, seen=1, unseen=2) is ANY
    assert retry.judge(UNSENT, POLICY, idempotent=True, seen=0, unseen=3) is STOP


def test_on_behalf_of_a_repeated_request_only_what_nobody_has_seen_is_repeated() -> None:
    kinds = (UNSENT, MISDIRECTED, OVERLOADED, LIMITED, CUT, SLOW, BUSY)
    allowed = [kind for kind in kinds if retry.judge(kind, ONCE, idempotent=True, seen=0, unseen=0) is not STOP]
    assert allowed == [UNSENT, MISDIRECTED]


@pytest.mark.parametrize(("number", "ceiling"), [(1, 0.025), (2, 0.05), (3, 0.1), (4, 0.2), (5, 0.25), (99, 0.25)])
def test_the_back_off_is_fully_jittered_under_a_rising_ceiling(number: int, ceiling: float) -> None:
    rng = random.Random(7)
    drawn = [retry.backoff_seconds(POLICY, number, rng) for _ in range(2000)]
    assert 0 <= min(drawn) < 0.1 * ceiling
    assert 0.9 * ceiling < max(drawn) <= ceiling
