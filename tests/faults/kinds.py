"""What is asked for: requests by kind and number, and how each knows its own answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SKUS = ("tea-assam", "tea-darjeeling", "tea-earl-grey", "tea-rooibos", "tea-sencha")
ORDERS_OF_ONE_SKU = 100_000
ORDERS = len(SKUS) * ORDERS_OF_ONE_SKU


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: Mapping[str, Any] | None = None

    def wire(self, host: str, *, keep: bool, token: str = "") -> bytes:
        body = b"" if self.body is None else json.dumps(self.body).encode()
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}"]
        if self.body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if not keep:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Kind:
    """Args:
    request: the `number`-th request of this kind.
    statuses: those that are as it should be.
    own: whether the body of such an answer belongs to the `number`-th request.
    """

    request: Callable[[int], Request]
    statuses: frozenset[int]
    own: Callable[[int, int, Any], bool]


def order(number: int) -> dict[str, Any]:
    """The `number`-th order: no two have the same user, article and quantity."""
    within = number % ORDERS_OF_ONE_SKU
    item = {"sku": SKUS[number // ORDERS_OF_ONE_SKU % len(SKUS)], "quantity": 1 + within // 100}
    return {"user_id": 1 + within % 100, "items": [item]}


def _is_order(number: int, status: int, body: Any) -> bool:
    return {name: body[name] for name in ("user_id", "items")} == order(number)


def _is_user(number: int, status: int, body: Any) -> bool:
    return bool(body["id"] == _user(number))


def _user(number: int) -> int:
    return 1 + number % 100


def _sign_up(number: int) -> dict[str, str]:
    return {"name": f"Guest{number}", "email": f"guest{number}@example.org"}


def _is_sign_up(number: int, status: int, body: Any) -> bool:
    return {name: body[name] for name in ("name", "email")} == _sign_up(number)


def _says_number(number: int, status: int, body: Any) -> bool:
    return status != 200 or bool(body["number"] == number)


def _anything(number: int, status: int, body: Any) -> bool:
    return True


KINDS = {
    "user": Kind(lambda n: Request("GET", f"/users/{_user(n)}"), frozenset({200}), _is_user),
    "order": Kind(lambda n: Request("POST", "/orders", order(n)), frozenset({202}), _is_order),
    "sign-up": Kind(lambda n: Request("POST", "/users", _sign_up(n)), frozenset({201}), _is_sign_up),
    "echo": Kind(lambda n: Request("GET", f"/toy/echo/{n}"), frozenset({200}), _says_number),
    "write": Kind(lambda n: Request("POST", f"/toy/echo/{n}", {}), frozenset({200}), _says_number),
    "ask": Kind(lambda n: Request("GET", f"/toy/ask/{n}"), frozenset({200}), _says_number),
    "work": Kind(lambda n: Request("GET", f"/toy/work/{n}"), frozenset({200, 503}), _says_number),
    "broken": Kind(lambda n: Request("GET", f"/toy/broken/{n}"), frozenset({500, 502, 503, 504}), _anything),
    "relay": Kind(lambda n: Request("GET", f"/toy/relay/{n}"), frozenset({500, 502, 503, 504}), _anything),
}
