"""What to paste into a shell once everything runs; made from what the registry and the services say."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from app.dev import roster
from app.errors import Unavailable
from app.settings import RegistrySettings

ASK_SECONDS = 2.0
QUANTITY = 2


def commands(edge: str, *, redis_url: str, settings: RegistrySettings, token_command: str) -> list[str]:
    """Commands that show the demo at `edge`, as far as its services are there.

    Args:
        token_command: prints a token of user 7; empty if there is none.
    """
    prefixes = _prefixes(redis_url, settings)
    found = [f"curl {edge}/users/7"] if "/users" in prefixes else []
    if not token_command or "/oauth" not in prefixes:
        return found
    bearer = f'-H "Authorization: Bearer $({token_command})"'
    found += [f"curl {bearer} {edge}/users/7"] if found else []
    sku = _a_sku(edge) if {"/users", "/orders", "/inventory"} <= prefixes else None
    if sku is not None:
        order = json.dumps({"user_id": 7, "items": [{"sku": sku, "quantity": QUANTITY}]})
        wait = "-H 'Prefer: wait=2'"
        found.append(f"curl -X POST {edge}/orders {bearer} {wait} -H 'Content-Type: application/json' -d '{order}'")
    return found


def _prefixes(redis_url: str, settings: RegistrySettings) -> set[str]:
    try:
        members = roster.read(redis_url, settings)
    except Unavailable:
        return set()
    return {prefix for member in members for prefix in member.instance.prefixes}


def _a_sku(edge: str) -> str | None:
    """An item that is in stock."""
    page = _get_json(f"{edge}/inventory")
    items = page.get("items", []) if isinstance(page, dict) else []
    return next((item["sku"] for item in items if item["available"] >= QUANTITY), None)


def _get_json(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=ASK_SECONDS) as reply:  # noqa: S310  # our own gateway
            return json.load(reply)
    except (OSError, urllib.error.URLError, ValueError):
        return None
