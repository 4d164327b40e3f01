"""The parts that decide and touch nothing: events, envelopes, partitions, retries, trimming, lanes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Contended, tables
from app.errors import Misconfigured, PeerUnreachable, Unavailable
from app.events import Event, Handlers, Outbox, envelope, partition, position
from app.events.envelope import CloudEvent, Unreadable
from app.events.handling import retrying
from app.events.handling.lane import Lanes
from app.events.handling.retrying import Again, Bury, RetryPolicy
from app.events.position import END, Position
from app.events.publishing import trimming
from app.events.publishing.trimming import Extent, Policy
from tests.events.shop import Bought

NOW = datetime(2026, 11, 28, 12, 30, 15, 123456, tzinfo=UTC)


class TestEvents:
    def test_a_class_says_type_version_and_key(self) -> None:
        class Paid(Event, type="billing.invoice.paid", version=2, key="invoice"):
            invoice: int

        assert (Paid.event_type, Paid.event_version, Paid.service()) == ("billing.invoice.paid", 2, "billing")
        assert Paid(invoice=7).key() == "7"

    @pytest.mark.parametrize(
        "wrong", ["", "paid", "Billing.paid", "billing.", "billing.paid.", "billing paid", "a" * 50 + ".b"]
    )
    def test_a_type_without_a_service_is_refused(self, wrong: str) -> None:
        with pytest.raises(TypeError, match="type looks like"):

            class Wrong(Event, type=wrong):
                pass

    def test_a_key_must_be_a_field(self) -> None:
        with pytest.raises(TypeError, match="none of its fields"):

            class Wrong(Event, type="a.b", key="nothing"):
                field: int

    def test_an_outbox_takes_its_own_services_events_alone(self) -> None:
        with pytest.raises(Misconfigured, match="not of users"):
            Outbox("users", tables.metadata(), sends=(Bought,))

    def test_one_event_has_one_handler(self) -> None:
        handlers = Handlers()

        async def first(_: Bought, __: AsyncSession) -> None: ...

        async def second(_: Bought) -> None: ...

        handlers.on(Bought)(first)
        with pytest.raises(Misconfigured, match="has a handler already"):
            handlers.on(Bought)(second)

    def test_a_handler_is_async_and_takes_an_event_and_perhaps_a_session(self) -> None:
        with pytest.raises(TypeError, match="must be async"):
            Handlers().on(Bought)(lambda event: None)  # type: ignore[type-var]


class TestEnvelopes:
    @given(
        key=st.text(min_size=1, max_size=50),
        data=st.dictionaries(
            st.text(max_size=10), st.integers(min_value=-(2**53), max_value=2**53) | st.text(max_size=20)
        ),
        seconds=st.none() | st.integers(min_value=1, max_value=10**6),
    )
    def test_what_is_written_is_read(self, key: str, data: dict[str, int | str], seconds: int | None) -> None:
        expires = None if seconds is None else NOW + timedelta(seconds=seconds)
        event = CloudEvent("1", "a.b", 3, "/a", key, NOW, data, "request", "00-trace", "feature-x", expires)
        assert envelope.parse(event.to_json()) == event

    @given(st.binary(max_size=200))
    def test_anything_else_is_unreadable(self, content: bytes) -> None:
        with pytest.raises(Unreadable):
            envelope.parse(content)

    @pytest.mark.parametrize("missing", ["id", "type", "dataversion", "source", "partitionkey", "time", "data"])
    def test_what_lacks_something_is_unreadable(self, missing: str) -> None:
        import orjson

        document = orjson.loads(CloudEvent("1", "a.b", 1, "/a", "k", NOW, {}).to_json())
        del document[missing]
        with pytest.raises(Unreadable):
            envelope.parse(orjson.dumps(document))


class TestPartitions:
    @given(st.text(min_size=1))
    def test_a_key_has_one_slot(self, key: str) -> None:
        assert 0 <= partition.slot_of(key) == partition.slot_of(key) < partition.SLOTS

    def test_everybody_comes_to_the_same_answer_and_gets_a_share(self) -> None:
        members = [f"orders-{n}" for n in range(4)]
        shares = Counter(partition.owner_of(p, members) for p in range(256))
        assert shares == Counter(partition.owner_of(p, members[::-1]) for p in range(256))
        assert min(shares[member] for member in members) > 256 / 4 / 2

    def test_who_leaves_moves_only_what_it_had(self) -> None:
        members = [f"orders-{n}" for n in range(4)]
        for p in range(256):
            before, after = partition.owner_of(p, members), partition.owner_of(p, members[:-1])
            assert before in (after, members[-1])

    def test_nobody_owns_anything_where_nobody_is(self) -> None:
        assert partition.owner_of(0, []) is None


class TestPositions:
    def test_they_compare_as_redis_does(self) -> None:
        assert position.parse(b"9-2") < position.parse("10-1") < Position(10, 2) < END
        assert str(position.parse("10-1")) == "10-1"


class TestRetrying:
    policy = RetryPolicy(tries=3, first_seconds=0.1, longest_seconds=1.0)

    def decide(self, error: Exception, failures: int = 1, waits: int = 1) -> Again | Bury:
        return retrying.decide(self.policy, error, failures=failures, waits=waits, rng=random.Random(7))

    def test_after_the_last_try_comes_the_grave(self) -> None:
        assert isinstance(self.decide(ValueError(), failures=2), Again)
        assert self.decide(ValueError(), failures=3) == Bury()

    def test_a_peer_that_does_not_answer_counts(self) -> None:
        assert self.decide(PeerUnreachable("gone", sent=True), failures=3) == Bury()

    @pytest.mark.parametrize("error", [Unavailable("away"), Contended("deadlock")])
    def test_our_own_database_does_not(self, error: Exception) -> None:
        verdict = self.decide(error, failures=3, waits=1_000)
        assert isinstance(verdict, Again)
        assert not verdict.counted

    @given(st.integers(min_value=1, max_value=10**6))
    def test_pauses_grow_and_are_bounded(self, failures: int) -> None:
        pause = self.policy.pause(failures, random.Random(failures))
        assert 0.05 <= pause <= 1.0


class TestTrimming:
    policy = Policy(age_ms=1_000, length=100)

    def test_what_everybody_has_goes_when_it_is_old(self) -> None:
        extent = Extent(50, {"a": Position(5_000, 0), "b": END})
        assert trimming.plan(extent, self.policy, 20_000) == trimming.Trim(Position(5_000, 0), 100, unread=False)

    def test_what_is_new_stays(self) -> None:
        extent = Extent(50, {"a": END})
        assert trimming.plan(extent, self.policy, 20_000) == trimming.Trim(Position(19_000, 0), 100, unread=False)

    def test_a_stream_without_readers_keeps_what_is_new(self) -> None:
        assert trimming.plan(Extent(50, {}), self.policy, 20_000) == trimming.Trim(
            Position(19_000, 0), 100, unread=False
        )

    def test_too_much_is_cut_and_said(self) -> None:
        extent = Extent(101, {"a": Position(1, 0)})
        assert trimming.plan(extent, self.policy, 20_000) == trimming.Trim(position.START, 100, unread=True)

    def test_nothing_is_done_about_nothing(self) -> None:
        assert trimming.plan(Extent(0, {}), self.policy, 20_000) is None


class TestLanes:
    async def test_a_key_keeps_its_order_and_others_pass(self) -> None:
        done: list[tuple[str, int]] = []
        gate = asyncio.Event()

        async def work(item: tuple[str, int]) -> None:
            if item[0] == "slow":
                await gate.wait()
            done.append(item)

        lanes = Lanes(work, most=100)
        for number in range(3):
            lanes.put("slow", ("slow", number))
            lanes.put("quick", ("quick", number))
        async with asyncio.timeout(10):
            while len(done) < 3:
                await asyncio.sleep(0)
        assert done == [("quick", 0), ("quick", 1), ("quick", 2)]
        gate.set()
        await lanes.empty()
        assert done[3:] == [("slow", 0), ("slow", 1), ("slow", 2)]

    async def test_there_is_no_room_for_more_than_so_many(self) -> None:
        gate = asyncio.Event()

        async def work(_: int) -> None:
            await gate.wait()

        lanes = Lanes(work, most=2)
        lanes.put("a", 1)
        await lanes.room()
        lanes.put("b", 2)
        waiting = asyncio.create_task(lanes.room())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        gate.set()
        await waiting
        await lanes.aclose()
