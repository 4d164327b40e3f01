"""How many of what: read from the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dev import plan
from app.dev.plan import Replica
from app.errors import InvalidInput

SERVICES = ("orders", "users", "gateway")


def test_each_service_has_one_replica_unless_told() -> None:
    assert plan.replicas(SERVICES, {"users": 2}) == (
        Replica("orders", 1),
        Replica("users", 1),
        Replica("users", 2),
        Replica("gateway", 1),
    )


def test_counts_may_be_repeated_and_listed_and_the_last_one_counts() -> None:
    assert plan.parse_counts(["users=3,orders=2", "users=4"], SERVICES) == {"users": 4, "orders": 2}


@given(name=st.sampled_from(SERVICES), count=st.integers(1, plan.MOST_REPLICAS))
def test_every_count_in_range_is_read(name: str, count: int) -> None:
    assert plan.parse_counts([f"{name}={count}"], SERVICES) == {name: count}


@pytest.mark.parametrize(
    "word", ["users", "users=", "users=0", "users=-1", "users=101", "users=١", "users=1_0", "=3", ""]
)
def test_what_makes_no_sense_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput):
        plan.parse_counts([word], SERVICES)


def test_an_unknown_service_is_named_beside_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"no service 'payments'; there are: orders, users, gateway"):
        plan.parse_counts(["payments=2"], SERVICES)


def test_every_gateway_serves_the_public_port() -> None:
    gateways = [replica.name for replica in plan.replicas(SERVICES, {"gateway": 2}) if replica.is_gateway]
    assert gateways == ["gateway-1", "gateway-2"]
