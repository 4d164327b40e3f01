"""A service as a whole: its breaker, its patience, and what is remembered of it; on a clock of the test's own."""

from __future__ import annotations

import random
from math import inf

import pytest

from app import settings as app_settings
from app.errors import CircuitOpen
from app.mesh.balancing.breaker import State
from app.mesh.calling.target import Target, Targets
from app.mesh.registry.view import Table
from tests.mesh.actors import Witness, instance


class Stage:
    """Targets, whose clock stands still unless it is moved."""

    def __init__(self, **client: object) -> None:
        settings = app_settings.load(client=client)
        self.now, self.witness = 1000.0, Witness()
        self.targets = Targets(
            settings.client, settings.breaker, self.witness, clock=lambda: self.now, rng=random.Random(7)
        )

    def announce(self, *ids: str, generation: int = 1) -> None:
        peers = tuple(instance(id=id_, generation=generation) for id_ in ids)
        self.targets.update(Table(instances={"users": peers}, ready={"users": peers}))

    @property
    def users(self) -> Target:
        return self.targets.of("users")

    def state(self) -> State:
        return self.users.breaker.state

    def fail(self, times: int) -> None:
        for _ in range(times):
            with self.users.breaker.permit() as permit:
                permit.fail(0.1)


def test_a_service_that_fails_is_left_alone_and_that_is_told() -> None:
    stage = Stage()
    stage.announce("one")
    stage.fail(10)
    with pytest.raises(CircuitOpen) as raised:
        stage.users.breaker.permit()
    assert raised.value.retry_after is not None
    assert 0 < raised.value.retry_after <= 5
    assert [(d.kind, d.service, d.outcome) for d in stage.witness.decisions] == [("breaker", "users", "open")]


def test_somebody_new_owes_nothing_to_the_failures_of_those_before() -> None:
    stage = Stage()
    stage.announce("one", "other")
    stage.fail(10)
    stage.announce("one")
    assert stage.state() is State.OPEN
    stage.announce("one", "new")
    assert stage.state() is State.CLOSED
    assert [d.outcome for d in stage.witness.decisions] == ["open", "closed"]


def test_a_restarted_process_is_somebody_new() -> None:
    stage = Stage()
    stage.announce("one")
    stage.fail(10)
    stage.announce("one", generation=2)
    assert stage.state() is State.CLOSED


def test_who_fails_again_is_blamed_again() -> None:
    stage = Stage()
    stage.announce("one")
    stage.fail(10)
    stage.announce("one", "new")
    stage.fail(10)
    stage.announce("new")
    assert stage.state() is State.OPEN


def test_a_breaker_that_is_switched_off_never_opens() -> None:
    settings = app_settings.load(breaker={"enabled": False})
    targets = Targets(settings.client, settings.breaker, Witness())
    breaker = targets.of("users").breaker
    for _ in range(200):
        breaker.permit().fail(9.0)
    assert breaker.state is State.CLOSED


def test_names_that_nobody_bears_are_not_remembered() -> None:
    stage = Stage()
    stage.announce("one")
    for number in range(1000):
        stage.targets.of(f"made-up-{number}")
    assert stage.targets.of("users") is stage.targets.of("users")
    assert [target.name for target in stage.targets] == ["users"]


@pytest.mark.parametrize(
    ("p99", "left", "seconds"),
    [(None, 10.0, 1.0), (0.01, 10.0, 1.0), (0.01, 1.0, 0.5), (1.0, 10.0, 3.0), (0.3, 0.4, 0.9)],
    ids=["unknown", "quick", "little time", "slow", "slow and little time"],
)
def test_an_attempt_may_be_silent_for_a_second_or_three_times_the_usual(
    p99: float | None, left: float, seconds: float
) -> None:
    stage = Stage()
    if p99 is not None:
        stage.users.latencies.p99 = p99
    target = stage.users
    target.latencies.p99 = p99
    assert target.attempt_seconds(left) == pytest.approx(seconds)


def test_no_bound_means_none() -> None:
    assert Stage(attempt_seconds=0).users.attempt_seconds(inf) == inf
    assert Stage(services={"users": {"attempt_seconds": 0}}).users.attempt_seconds(inf) == inf


def test_less_time_than_half_of_the_calls_need_is_little() -> None:
    target = Stage().users
    assert not target.is_little(0.001)
    for _ in range(10):
        target.latencies.record(0.1, 1000.0)
    assert target.is_little(0.05)
    assert not target.is_little(0.2)


def test_a_services_own_settings_stand_in_for_the_general_ones() -> None:
    stage = Stage(services={"users": {"timeout_seconds": 2.0, "retries": 0}})
    stage.announce("one")
    assert (stage.users.timeout_seconds, stage.users.policy.retries, stage.users.policy.unsent_retries) == (2.0, 0, 0)
    assert stage.targets.of("orders").timeout_seconds == 10.0
