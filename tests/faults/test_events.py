"""Orders while whoever takes, sends and handles them is killed again and again: every one ends, and the stock balances.

The short form places some hundred orders on SQLite; ``--long`` ten thousand, on SQLite, PostgreSQL and MySQL.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.data import databases
from tests.dev.system import until
from tests.faults import kinds, ledger, redis, world
from tests.faults.journal import Note
from tests.faults.ledger import Ledger
from tests.faults.pace import Pace
from tests.faults.redis import Redis
from tests.faults.shoppers import Shoppers
from tests.faults.world import World

pytestmark = pytest.mark.timeout(3600)

REPLICAS = "orders=2,inventory=2"
KILLED = ("orders", "inventory")
# Of each article: less than is ordered, so that some orders are rejected.
SHARE_IN_STOCK = 0.8


@dataclass
class Shop:
    """A system with a limited stock, on one kind of database."""

    world: World
    server: Redis
    orders_url: str
    inventory_url: str

    def ledger(self) -> Ledger:
        return ledger.read(self.orders_url, self.inventory_url)

    def stock_for(self, orders: int) -> dict[str, int]:
        """Put so much on the shelves that not all of them can be served; returns how much."""
        wanted: dict[str, int] = dict.fromkeys(kinds.SKUS, 0)
        for number in range(orders):
            [item] = kinds.order(number)["items"]
            wanted[item["sku"]] += item["quantity"]
        stock = {sku: int(pieces * SHARE_IN_STOCK) for sku, pieces in wanted.items()}
        for sku, pieces in stock.items():
            assert self.world.ask(f"/inventory/{sku}", method="PATCH", json_body={"available": pieces}).status == 200
        return stock

    @contextmanager
    def killing(self, every_seconds: float, seed: int) -> Iterator[list[str]]:
        """``kill -9`` on one process after the other, at random, for the length of the block."""
        killed: list[str] = []
        over, rng = threading.Event(), random.Random(seed)

        def kill() -> None:
            while not over.wait(every_seconds):
                victims = [p for p in self.world.replicas(*KILLED) if p.stage == "serving"]
                if victims:
                    victim = rng.choice(victims)
                    with suppress(ProcessLookupError):  # on its way out already
                        self.world.signal(victim, signal.SIGKILL)
                        killed.append(f"{victim.service}-{victim.number}")

        thread = threading.Thread(target=kill, name="killer", daemon=True)
        thread.start()
        try:
            yield killed
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="module", params=databases.KINDS)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pace: Pace) -> Iterator[Shop]:
    if request.param == "sqlite":
        with _running(tmp_path_factory.mktemp("events"), pace) as shop:
            yield shop
        return
    if not request.config.getoption("--long"):
        pytest.skip("on PostgreSQL and MySQL with --long alone")
    server = request.getfixturevalue(databases.SERVERS[request.param])
    with databases.fresh(server) as url, _running(tmp_path_factory.mktemp("events"), pace, url) as shop:
        yield shop


@contextmanager
def _running(folder: Path, pace: Pace, url: str | None = None) -> Iterator[Shop]:
    environment = {
        **pace.settings,
        "MESH_EVENTS__LEASE_SECONDS": "2",
        # With a process killed every second, some orders take their time; that is not to be their end.
        "MESH_ORDERS__TIMEOUT_SECONDS": "600",
        **({"DATABASE_URL": url} if url else {}),
    }
    with (
        redis.running(folder / "redis") as server,
        world.running(folder, redis_url=server.url, environment=environment, replicas=REPLICAS) as system,
    ):
        system.settle()
        files = {name: f"sqlite+aiosqlite:///{system.data_dir / name}.sqlite3" for name in KILLED}
        yield Shop(system, server, url or files["orders"], url or files["inventory"])


def test_orders_and_stock_balance_while_processes_are_killed_and_redis_forgets(
    shop: Shop, pace: Pace, note: Note
) -> None:
    orders = pace.chaos_orders
    stock = shop.stock_for(orders)
    shoppers = Shoppers(shop.world.url, shop.world.token, run=f"chaos-{time.time():.0f}")
    with shop.killing(pace.chaos_seconds, seed=5) as killed, ThreadPoolExecutor(1) as aside:
        shopping = aside.submit(shoppers.shop, orders)
        # From this thread: what a thread has started on a leash ends with it.
        while len(shoppers.placed) + len(shoppers.refused) <= orders // 2 and not shopping.done():
            time.sleep(0.05)
        shop.server.kill()
        shop.server.start()
        shopping.result()

    def balance() -> list[str]:
        return shop.ledger().wrong(
            placed=shoppers.placed,
            refused=len(shoppers.refused),
            cancelled=frozenset(shoppers.cancelled),
            stock=stock,
        )

    try:
        until("the books balance", lambda: not balance())
    finally:
        read = shop.ledger()
        note(
            f"{len(shoppers.placed) + len(shoppers.refused)} orders, {shoppers.repeats} requests were repeated, {len(killed)} processes killed, "
            f"Redis emptied once; {dict(read.states())}; wrong: {balance()}"
        )
    assert read.states()["rejected"] > 0
    assert read.states()["confirmed"] > orders / 2
