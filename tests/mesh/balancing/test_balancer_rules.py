"""The balancer under whatever comes in whatever order: peers, rules, requests, their ends, and time."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from app.mesh.balancing import breaker, outlier
from app.mesh.balancing.balancer import Outcome, Pick, Policy
from app.mesh.balancing.endpoint import Endpoint
from app.mesh.registry.record import Instance
from app.mesh.registry.rules import Rule
from tests.mesh.balancing.stage import Stage, peer

NAMES = ["a", "b", "c", "d", "e"]
SANDBOXES = [None, None, None, "x"]
# Few calls judge, so that few steps lead into every corner.
POLICY = Policy(
    ejection=outlier.Policy(failures_in_a_row=3),
    breaker=breaker.Policy(ring=10, least_calls=4, slow_seconds=2.0),
)

names = st.sampled_from(NAMES)


class BalancerRules(RuleBasedStateMachine):
    picks = Bundle("picks")

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(POLICY, zone="east")
        self.there: dict[str, Instance] = {}
        self.rule: Rule | None = None
        self.open: list[Pick] = []
        self.unsettled: list[Pick] = []

    # ------------------------------------------------------------------------------------- who is there

    @rule(
        name=names,
        version=st.sampled_from(["v1", "v2"]),
        zone=st.sampled_from(["east", "west"]),
        sandbox=st.sampled_from(SANDBOXES),
        state=st.sampled_from(["ready", "ready", "ready", "draining"]),
        weight=st.sampled_from([1.0, 1.0, 0.5, 0.0]),
    )
    def start(self, name: str, **facts: Any) -> None:
        """A new process, also in the place of one that was there."""
        generation = self.there[name].generation + 1 if name in self.there else 1
        self.there[name] = peer(name, generation=generation, **facts)
        self.publish()

    @rule(name=names)
    def leave(self, name: str) -> None:
        if self.there.pop(name, None) is not None:
            self.publish()

    @rule(share=st.sampled_from([0.0, 0.05, 0.5, 1.0]), weight=st.sampled_from([0.0, 0.2, 3.0]))
    def shift(self, share: float, weight: float) -> None:
        revision = self.rule.revision + 1 if self.rule is not None else 1
        self.rule = Rule("users", revision, shares=(("v2", share),), weights=(("a", weight),))
        self.publish()

    def publish(self) -> None:
        self.stage.enter(*self.there.values(), rule=self.rule)

    # ------------------------------------------------------------------------------------- requests

    @rule(
        target=picks,
        tried=st.sets(names, max_size=2),
        sandbox=st.sampled_from(SANDBOXES),
        key=st.sampled_from([None, None, "one", "other"]),
    )
    def pick(self, tried: set[str], sandbox: str | None, key: str | None) -> Any:
        broken = {one.instance.id for one in self.endpoints() if one.is_broken}
        probing = {pick.peer.id for pick in self.unsettled if self.is_the_probe(pick)}
        pick = self.stage.balancer.pick("users", tried=tried, sandbox=sandbox, key=key)
        ready = self.ready(sandbox) or self.ready(None)
        if pick is None:
            assert ready == {}
            return multiple()
        self.check(pick, ready, tried, broken, probing)
        self.open.append(pick)
        self.unsettled.append(pick)
        return pick

    def check(
        self, pick: Pick, ready: dict[str, Instance], tried: set[str], broken: set[str], probing: set[str]
    ) -> None:
        """Only who is ready, in its sandbox, and in; unless it is to be found out, or nobody else is left."""
        who = pick.peer.id
        assert ready[who] is pick.peer
        assert not (pick.is_probe and pick.in_panic)
        if who in broken:
            assert pick.is_probe or pick.in_panic
        if pick.is_probe:
            assert who in broken
            assert who not in probing
        if pick.in_panic:
            others = [one for one in self.endpoints() if one.instance.id in ready.keys() - tried] or [pick.endpoint]
            assert all(one.is_broken for one in others)
        if who in tried:
            assert ready.keys() <= tried

    @precondition(lambda self: self.unsettled)
    @rule(pick=picks, outcome=st.sampled_from([*Outcome, Outcome.FAILED, None]), seconds=st.sampled_from([0.01, 3.0]))
    def settle(self, pick: Pick, outcome: Outcome | None, seconds: float) -> None:
        self.stage.wait(seconds)
        pick.settle(outcome)
        self.unsettled = [one for one in self.unsettled if one is not pick]

    @rule(pick=consumes(picks), cancelled=st.booleans())
    def end(self, pick: Pick, cancelled: bool) -> None:
        error = KeyboardInterrupt if cancelled else None
        pick.__exit__(error, error() if error else None, None)
        self.forget(pick)

    @rule(pick=picks)
    def release_early(self, pick: Pick) -> None:
        pick.release()
        self.open = [one for one in self.open if one is not pick]

    def forget(self, pick: Pick) -> None:
        self.open = [one for one in self.open if one is not pick]
        self.unsettled = [one for one in self.unsettled if one is not pick]

    @rule(name=names, seconds=st.sampled_from([0.5, 20.0]))
    def avoid(self, name: str, seconds: float) -> None:
        self.stage.balancer.avoid(name, seconds, "draining")

    @rule(name=names, times=st.integers(1, 6))
    def fail_often(self, name: str, times: int) -> None:
        self.answer_often(name, times, Outcome.FAILED)

    @rule(name=names, times=st.integers(1, 6))
    def succeed_often(self, name: str, times: int) -> None:
        self.answer_often(name, times, Outcome.OK)

    def answer_often(self, name: str, times: int, outcome: Outcome) -> None:
        others = set(NAMES) - {name}
        for _ in range(times):
            pick = self.stage.balancer.pick("users", tried=others)
            if pick is not None:
                self.stage.wait(0.01)
                pick.settle(outcome)
                pick.release()

    @rule(seconds=st.floats(0.05, 40.0))
    def wait(self, seconds: float) -> None:
        self.stage.wait(seconds)

    # ------------------------------------------------------------------------------------- what always holds

    def endpoints(self) -> list[Endpoint]:
        return list(self.stage.balancer._endpoints.values())

    def ready(self, sandbox: str | None) -> dict[str, Instance]:
        """Who may get a request, by the table and the rule alone."""
        weights = dict(self.rule.weights) if self.rule else {}
        found = {
            name: one
            for name, one in self.there.items()
            if one.state == "ready" and weights.get(name, one.weight) > 0 and one.sandbox == sandbox
        }
        shares = dict(self.rule.shares) if self.rule and sandbox is None else {}
        wanted = {name: one for name, one in found.items() if self.has_share(one.version, shares)}
        return wanted or found

    def has_share(self, version: str, shares: dict[str, float]) -> bool:
        return shares.get(version, 1.0 - sum(shares.values())) > 0

    def is_the_probe(self, pick: Pick) -> bool:
        """Whether the ejection of its peer waits for it: a breaker has three probes, and is another matter."""
        judge = pick.endpoint.outlier
        assert judge is not None
        return pick.is_probe and judge.state is outlier.State.PROBING and pick.epoch == judge.epoch

    @invariant()
    def what_is_in_flight_is_what_was_picked_and_not_released(self) -> None:
        assert self.stage.balancer.in_flight == len(self.open)
        for endpoint in {pick.endpoint for pick in [*self.open, *self.unsettled]} | set(self.endpoints()):
            assert endpoint.in_flight == sum(pick.endpoint is endpoint for pick in self.open)
            assert endpoint.waiting == sum(pick.endpoint is endpoint for pick in self.unsettled)

    @invariant()
    def an_ejected_peer_has_one_probe_at_most(self) -> None:
        probes = [pick.endpoint for pick in self.unsettled if self.is_the_probe(pick)]
        assert len(probes) == len(set(probes))

    @invariant()
    def everybody_is_in_one_list(self) -> None:
        for pool in self.stage.balancer._pools.values():
            for cell in pool.cells():
                assert [one.at for one in cell.live] == list(range(len(cell.live)))
                assert set(cell.live) | set(cell.out) == set(cell.peers)
                assert len(cell.live) + len(cell.out) == len(cell.peers)
                assert all(one.at == -1 for one in cell.out)
                assert not any(one.is_broken for one in cell.live)
                assert set(cell.due) <= set(cell.out)

    @invariant()
    def shares_are_shares(self) -> None:
        for sandbox in (None, "x"):
            found = self.stage.balancer.explain("users", sandbox=sandbox)
            total = sum(one.share for one in found)
            assert found == () or total == 0 or abs(total - 1.0) < 1e-9
            assert all(one.share >= 0 and one.score >= 0 for one in found)
            assert {one.id for one in found} == (self.ready(sandbox) or self.ready(None)).keys()

    def teardown(self) -> None:
        """When all have ended and all goes well again, everybody comes back and nothing is left in flight."""
        for pick in {id(pick): pick for pick in [*self.open, *self.unsettled]}.values():
            pick.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert self.stage.balancer.in_flight == 0
        for _ in range(6):
            self.stage.wait(400.0)
            for sandbox in (None, "x"):
                for name in NAMES:
                    found = self.stage.balancer.pick("users", tried=set(NAMES) - {name}, sandbox=sandbox)
                    if found is not None:
                        found.__exit__(None, None, None)
        for pool in self.stage.balancer._pools.values():
            assert all(not cell.out for cell in pool.cells())
        assert self.stage.balancer.in_flight == 0


BalancerRules.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestBalancerRules = BalancerRules.TestCase
