"""Clients that place orders and do not give up: each order has an idempotency key, and is sent until it is answered."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.dev.system import PATIENCE_SECONDS
from tests.faults import kinds
from tests.tokens import bearer

AT_ONCE = 12
# Every so manieth order is cancelled as soon as it was placed.
CANCELLED = 7
_ANSWER_SECONDS = 15
_PAUSE_SECONDS = 0.2


@dataclass
class Shoppers:
    """What was asked for and what was answered.

    Args:
        url: of the edge.
        token: gives a token that may do everything.
        run: makes the keys of this run its own.
    """

    url: str
    token: Callable[[], str]
    run: str
    placed: dict[int, int] = field(default_factory=dict)
    # Numbers of orders that were rejected before their first answer came through: its repetition says so, and no id.
    refused: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    repeats: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def shop(self, count: int) -> None:
        """Place so many orders, some at once; returns when each of them was answered."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._place, range(count)))

    def _place(self, number: int) -> None:
        key = f"{self.run}-{number}"
        order = self._insist("POST", "/orders", kinds.order(number), key)
        with self._lock:
            if "id" not in order:
                self.refused.add(number)
                return
            self.placed[number] = order["id"]
        if number % CANCELLED == 0:
            self._insist("POST", f"/orders/{order['id']}/cancel", None, f"{key}-cancel")
            with self._lock:
                self.cancelled.add(order["id"])

    def _insist(self, method: str, path: str, body: Any, key: str) -> Any:
        give_up = time.monotonic() + 3 * PATIENCE_SECONDS
        while True:
            status, answer = self._ask(method, path, body, key)
            if status in (200, 201, 202):
                return answer
            # An order that was rejected meanwhile can't be cancelled; and placing it again says that it was.
            if status == 409 and answer.get("code") != "request_in_flight":
                return answer
            assert status in (0, 409, 502, 503, 504), (status, answer)
            assert time.monotonic() < give_up, (status, answer)
            self.repeats += 1
            time.sleep(_PAUSE_SECONDS)

    def _ask(self, method: str, path: str, body: Any, key: str) -> tuple[int, Any]:
        """Status and answer; 0 if there was none."""
        data = json.dumps(body).encode() if body is not None else b""
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            # Until then, and a little longer, a request is taken to be dealt with, though its process may be dead.
            "X-Request-Timeout-Ms": "3000",
            **bearer(self.token()),
        }
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"{}")
        except (OSError, ValueError):
            return 0, {}
