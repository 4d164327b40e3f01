"""Clients that ask all the time, and remember every answer: whether anything is lost while a test goes on."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.tokens import bearer

PAUSE_SECONDS = 0.01
_serial = itertools.count()


@dataclass
class Tally:
    """Answers by (method, status); a request without one counts under its error."""

    counts: Counter[tuple[str, object]] = field(default_factory=Counter)

    def answered(self, method: str) -> int:
        """Requests that went well."""
        return sum(count for (asked, what), count in self.counts.items() if asked == method and what in (200, 201))

    @property
    def failures(self) -> dict[tuple[str, object], int]:
        return {key: count for key, count in self.counts.items() if key[1] not in (200, 201)}


@contextmanager
def load(url: str, *, token: str, clients: int = 4) -> Iterator[Tally]:
    """Half of the clients read a user, the others create users, over kept-alive connections, for the block's length.

    Args:
        token: of who may create users.
    """
    tally, over = Tally(), threading.Event()
    lock = threading.Lock()
    threads = [
        threading.Thread(target=_client, args=(url, ("GET", "POST")[number % 2], token, tally, lock, over))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _client(url: str, method: str, token: str, tally: Tally, lock: threading.Lock, over: threading.Event) -> None:
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=20)
    while not over.is_set():
        try:
            outcome: object = _ask(connection, method, token)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            outcome = repr(error)
        with lock:
            tally.counts[method, outcome] += 1
        # The pace of a client; nothing is waited for.
        time.sleep(PAUSE_SECONDS)
    connection.close()


def _ask(connection: http.client.HTTPConnection, method: str, token: str) -> int:
    if method == "GET":
        connection.request("GET", "/users/7")
    else:
        user = {"name": "Ada", "email": f"ada{next(_serial)}@example.com"}
        connection.request("POST", "/users", json.dumps(user), {"Content-Type": "application/json", **bearer(token)})
    reply = connection.getresponse()
    reply.read()
    return reply.status
