"""What the settings make of the numbers."""

from __future__ import annotations

from math import inf

import pytest

from app import settings
from app.errors import Misconfigured
from app.mesh.balancing import breaker, outlier
from app.mesh.balancing.policy import Policy, balancer_policy, breaker_policy
from app.settings import Settings


def policy_of(loaded: Settings) -> Policy:
    return balancer_policy(loaded.balancing, loaded.breaker, timeout_seconds=10.0)


def test_the_settings_of_the_file_are_the_defaults() -> None:
    assert policy_of(settings.load()) == Policy(breaker=breaker.Policy(slow_seconds=5.0))


def test_ejection_breakers_and_slowness_can_be_switched_off() -> None:
    loaded = settings.load()
    quiet = loaded.model_copy(
        update={
            "balancing": loaded.balancing.model_copy(update={"ejection": False}),
            "breaker": loaded.breaker.model_copy(update={"enabled": False}),
        }
    )
    assert (policy_of(quiet).ejection, policy_of(quiet).breaker) == (None, None)
    assert policy_of(loaded).ejection == outlier.Policy()
    patient = loaded.breaker.model_copy(update={"slow_share": 0.0})
    assert breaker_policy(patient, timeout_seconds=10.0).slow_seconds == inf


def test_a_breaker_that_stays_open_for_long_stays_so_at_least() -> None:
    loaded = settings.load().breaker.model_copy(update={"open_seconds": 90.0})
    assert breaker_policy(loaded, timeout_seconds=10.0).longest_open_seconds == 90.0


def test_a_service_s_strategy_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_BALANCING__STRATEGIES", '{"reports": "least"}')
    assert policy_of(settings.load()).strategies == {"reports": "least"}
    monkeypatch.setenv("MESH_BALANCING__STRATEGIES", '{"reports": "best"}')
    with pytest.raises(Misconfigured, match=r"balancing\.strategies\.reports"):
        settings.load()
