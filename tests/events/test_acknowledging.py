"""What was handled is not kept for anybody: a group that goes in peace leaves nothing open."""

from __future__ import annotations

import pytest
import redis

from app.mesh.keys import Keys
from tests.events.shop import NAME, Shop, each

CUSTOMERS = [f"c{n}" for n in range(40)]
PARTITIONS = 4


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_done_while_others_are_acknowledged_is_acknowledged_too(
    shop: Shop, store: redis.Redis, keys: Keys
) -> None:
    async with shop.process():
        await shop.buy(*each(CUSTOMERS, 5))
        await shop.until_sold(200)
    open_ = [store.xpending(keys.events(NAME, partition), NAME)["pending"] for partition in range(PARTITIONS)]
    assert open_ == [0] * PARTITIONS
