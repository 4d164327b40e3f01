"""How far behind everybody is: as Redis has it, on any version that we support."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncSession

from app import redis_client
from app.errors import Conflict, NotFound
from app.events.observer import Measurement
from app.events.operating.survey import Count, Reading, Standing, add_up
from app.events.operating.surveyor import Surveyor
from app.events.position import Position
from app.mesh.coordination import open_line
from app.mesh.keys import EventStream, Keys
from app.telemetry import EventMetrics, Metrics
from tests.events.shop import NAME, Bought, Shop, until

PARTITIONS = 4
CUSTOMERS = [f"c{n}" for n in range(20)]

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def surveyor(redis_url: str, keys: Keys) -> AsyncIterator[Surveyor]:
    async with (
        open_line(redis_url, timeout_seconds=2.0) as line,
        redis_client.open_async(redis_url, timeout_seconds=2.0) as client,
    ):
        yield Surveyor(line, client, keys, count_up_to=3000)


def reading(service: str | None, group: str, partition: int, waiting: int = 0, **of: object) -> Reading:
    fields: dict[str, object] = {"open": 0, "oldest": None, "owner": None, **of}
    return Reading(service, partition, group, Count(waiting), **fields)  # type: ignore[arg-type]


class TestAddingUp:
    def test_partitions_of_a_service_are_one_standing_of_each_group(self) -> None:
        found = add_up(
            [
                reading("users", "orders", 1, 3, open=1, oldest=Position(2000, 7), owner="orders-1"),
                reading(None, "orders", 0, 1, oldest=Position(9000, 0)),
                reading("users", "orders", 0, 4, open=2, oldest=Position(1000, 9)),
                reading("users", "mail", 0),
            ]
        )
        assert found == (
            Standing("users", "mail", Count(0), 0, None, {0: None}),
            Standing("users", "orders", Count(7), 3, Position(1000, 9), {0: None, 1: "orders-1"}),
            Standing(None, "orders", Count(1), 0, Position(9000, 0), {0: None}),
        )
        assert [standing.behind for standing in found] == [0, 10, 1]
        assert [standing.oldest_seconds(now_ms=4000) for standing in found] == [None, 3.0, 0.0]

    def test_a_count_that_was_given_up_stays_so_in_every_sum(self) -> None:
        total = Count(5) + Count(1000, exact=False) + Count(1)
        assert (total.number, total.exact, str(total)) == (1006, False, "1006+")
        assert str(Count(5)) == "5"


@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("events:shop:12", ("events", "shop", 12)),
        ("again:shop:0", ("again", "shop", 0)),
        ("dead:shop", ("dead", "shop", 0)),
        ("dead:shop:1", None),
        ("events:shop", None),
        ("events:shop:x", None),
        ("wake:shop", None),
        ("cache:val:events:shop:1", None),
    ],
)
def test_keys_of_streams_are_read_back(keys: Keys, key: str, read: tuple[str, str, int] | None) -> None:
    whole = keys.prefix + key
    expected = None if read is None else EventStream(whole, *read)  # type: ignore[arg-type]  # a literal in a table
    assert keys.event_stream(whole) == expected
    assert Keys("another").event_stream(whole) is None


@on_sqlite
async def test_it_says_what_waits_what_is_open_and_who_has_it(shop: Shop, surveyor: Surveyor) -> None:
    gate = asyncio.Event()

    async def wait(_: Bought, __: AsyncSession) -> None:
        await gate.wait()

    async with shop.process(wait):
        await shop.buy(*CUSTOMERS)
        await until(lambda: _open(surveyor, 20))
        events, again = (await surveyor.survey()).standings
        assert (events.service, events.group, events.waiting, events.open) == (NAME, NAME, Count(0), 20)
        assert events.owners == dict.fromkeys(range(PARTITIONS), "shop-1")
        assert again.service is None
        assert again.behind == 0
        gate.set()
        await shop.until_sold(20)
    await shop.buy(*CUSTOMERS)
    async with shop.process(listening=False):
        await until(lambda: _waiting(surveyor, 20))
    events, again = (await surveyor.survey()).standings
    assert events.open == 0
    assert events.owners == dict.fromkeys(range(PARTITIONS))
    assert events.oldest is not None


async def _open(surveyor: Surveyor, count: int) -> bool:
    return sum(standing.open for standing in (await surveyor.survey()).standings) == count


async def _waiting(surveyor: Surveyor, count: int) -> bool:
    return sum(standing.waiting.number for standing in (await surveyor.survey()).standings) == count


class TestCounting:
    """Of what a group was not given, on a stream of 5,000 entries, of which some are gone; at most 3,000 and some."""

    @pytest.fixture
    def stream(self, store: redis.Redis, keys: Keys) -> EventStream:
        key = keys.events(NAME, 0)
        with store.pipeline() as pipeline:
            for number in range(1, 5001):
                pipeline.xadd(key, {"event": "?"}, id=f"{number}-1")
            pipeline.xdel(key, *(f"{number}-1" for number in range(2000, 5000, 1000)))
            pipeline.pexpire(key, 60_000)
            pipeline.execute()
        return EventStream(key, "events", NAME, 0)

    @pytest.mark.parametrize(
        ("given", "count", "oldest"),
        [
            pytest.param(5000, Count(0), None, id="all"),
            pytest.param(4999, Count(1), 5000, id="all but one"),
            pytest.param(3500, Count(1499), 3501, id="more than a page"),
            pytest.param(3000, Count(1999), 3001, id="nearly whole pages"),
            pytest.param(1997, Count(3000), 1998, id="as many as are counted"),
            pytest.param(1996, Count(3000, exact=False), 1997, id="one more"),
            pytest.param(1, Count(3000, exact=False), 2, id="nearly none"),
            pytest.param(0, Count(4997), 1, id="none: the length says it"),
        ],
    )
    async def test_counts_exactly_up_to_its_bound(
        self, surveyor: Surveyor, store: redis.Redis, stream: EventStream, given: int, count: Count, oldest: int | None
    ) -> None:
        store.xgroup_create(stream.key, "mail", id=f"{given}-1")
        [found] = await surveyor.read([stream])
        assert found.waiting == count
        assert found.oldest == (None if oldest is None else Position(oldest, 1))

    async def test_what_was_given_and_not_finished_is_the_oldest(
        self, surveyor: Surveyor, store: redis.Redis, stream: EventStream
    ) -> None:
        store.xgroup_create(stream.key, "mail", id="100-1")
        store.xreadgroup("mail", "mail-1", {stream.key: ">"}, count=50)
        store.xack(stream.key, "mail", "101-1", "103-1")
        [found] = await surveyor.read([stream])
        assert (found.open, found.oldest, found.owner) == (48, Position(102, 1), None)


async def test_streams_that_are_not_there_are_no_error(surveyor: Surveyor, keys: Keys) -> None:
    assert await surveyor.read([EventStream(keys.events(NAME, 0), "events", NAME, 0)]) == []
    assert (await surveyor.survey()).standings == ()


class TestForgetting:
    async def test_a_group_that_is_gone_holds_nothing_up_any_more(
        self, surveyor: Surveyor, store: redis.Redis, keys: Keys
    ) -> None:
        for partition in range(PARTITIONS):
            for group in ("mail", "orders"):
                store.xgroup_create(keys.events(NAME, partition), group, id="0", mkstream=True)
            store.pexpire(keys.events(NAME, partition), 60_000)
        assert await surveyor.forget("mail") == PARTITIONS
        assert [standing.group for standing in (await surveyor.survey()).standings] == ["orders"]
        with pytest.raises(NotFound):
            await surveyor.forget("mail")

    @on_sqlite
    async def test_one_that_is_at_work_is_not_forgotten(self, shop: Shop, surveyor: Surveyor) -> None:
        async with shop.process():
            await shop.buy("ann")
            await shop.until_sold(1)
            with pytest.raises(Conflict, match="stop the service"):
                await surveyor.forget(NAME)
        assert await surveyor.forget(NAME) == 2 * PARTITIONS


class TestMeasuring:
    @on_sqlite
    async def test_one_process_of_all_says_how_much_waits(self, shop: Shop, store: redis.Redis, keys: Keys) -> None:
        gate = asyncio.Event()

        async def wait(_: Bought, __: AsyncSession) -> None:
            await gate.wait()

        store.xadd(keys.dead(NAME), {"event": "?"})
        store.pexpire(keys.dead(NAME), 60_000)
        expected = Measurement(NAME, 0, 0.0, lags={NAME: 0}, open={NAME: 3}, dead=1)
        async with shop.process(wait, check_seconds=0.02), shop.process(wait, check_seconds=0.02):
            await shop.buy("ann", "bob", "cid")
            await until(lambda: _said(shop, expected))
            gate.set()
            await shop.until_sold(3)
            await until(lambda: _said(shop, expected._replace(open={NAME: 0})))
        assert None not in shop.witness.measurements

    @on_sqlite
    async def test_who_does_not_lead_any_more_says_nothing(self, shop: Shop, store: redis.Redis, keys: Keys) -> None:
        async with shop.process(listening=False, check_seconds=0.02, lease_seconds=0.3):
            await until(lambda: _said_something(shop))
            store.set(keys.lock(f"job:relay:{NAME}"), "somebody else", px=60_000)
            await until(lambda: _said(shop, None))

    def test_what_is_measured_is_shown_until_it_is_another_processs_turn(self) -> None:
        metrics = Metrics(service=NAME)
        observer = EventMetrics(metrics)
        observer.measured(Measurement(NAME, 7, 1.5, lags={"mail": 3}, open={"mail": 2}, dead=4))
        labels = {"service": NAME, "group": "mail"}
        assert value(metrics.registry, "mesh_outbox_waiting", service=NAME) == 7
        assert value(metrics.registry, "mesh_outbox_oldest_seconds", service=NAME) == 1.5
        assert value(metrics.registry, "mesh_events_lag", **labels) == 3
        assert value(metrics.registry, "mesh_events_open", **labels) == 2
        assert value(metrics.registry, "mesh_events_dead", group=NAME) == 4
        observer.measured(Measurement(NAME, 8, 2.0))  # Redis is away
        assert value(metrics.registry, "mesh_outbox_waiting", service=NAME) == 8
        assert value(metrics.registry, "mesh_events_lag", **labels) is None
        observer.measured(None)
        assert value(metrics.registry, "mesh_outbox_waiting", service=NAME) is None


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


async def _said(shop: Shop, measurement: Measurement | None) -> bool:
    return bool(shop.witness.measurements) and shop.witness.measurements[-1] == measurement


async def _said_something(shop: Shop) -> bool:
    return bool(shop.witness.measurements)
