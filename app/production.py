"""What a process must not start with in production: defaults and secrets that are meant for a demo."""

from __future__ import annotations

import json
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.errors import Misconfigured
from app.service import IDENTITY, Service
from app.settings import Settings

SHORTEST_SECRET = 32


def require(settings: Settings, service: Service, *, debug: bool) -> None:
    """Let a process start, unless it is in production and must not.

    Args:
        debug: whether Flask shows its insides.

    Raises:
        Misconfigured: names everything that is wrong.
    """
    if settings.env != "production":
        return
    found = [*problems(settings, service, demo=demo_secrets(settings.secrets_file))]
    if debug:
        found.append("Flask's debug mode is on (FLASK_DEBUG)")
    if found:
        raise Misconfigured(f"Not in production: {'; '.join(found)}")


def problems(settings: Settings, service: Service, *, demo: Collection[str] | None = None) -> tuple[str, ...]:
    """What is wrong for production, each in a few words that hold no secret.

    Args:
        demo: the demo's secrets that lie in the data directory; None if there are none.
    """
    known = demo or ()
    secret = _said(settings.auth.client_secret)
    found = []
    if not _is_safe(settings.auth.issuer):
        found.append("the issuer (MESH_AUTH__ISSUER) is http, and not on this machine")
    if secret is not None:
        found += _weaknesses("the client secret (MESH_AUTH__CLIENT_SECRET)", secret, known)
    elif service.calls:
        found.append("there is no client secret (MESH_AUTH__CLIENT_SECRET), and other services are called")
    if service.name == IDENTITY:
        key = _said(settings.identity.key_secret) or ""
        found += _weaknesses("the secret that encrypts the signing keys (MESH_IDENTITY__KEY_SECRET)", key, known)
    if demo is not None:
        found.append(f"the data directory is a demo's: {settings.secrets_file.name} lies in it")
    return tuple(found)


def demo_secrets(file: Path) -> frozenset[str] | None:
    """All that stands in the demo's file of secrets; None if there is none. One that cannot be read is there, too."""
    try:
        return frozenset(_texts(json.loads(file.read_bytes())))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return frozenset()


def _weaknesses(what: str, secret: str, demo: Collection[str]) -> list[str]:
    if secret in demo:
        return [f"{what} is the demo's"]
    if not secret:
        return [f"{what} is empty"]
    return [f"{what} has fewer than {SHORTEST_SECRET} characters"] if len(secret) < SHORTEST_SECRET else []


def _is_safe(issuer: str) -> bool:
    parts = urlsplit(issuer)
    return parts.scheme == "https" or _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _said(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _texts(found: object) -> list[str]:
    if isinstance(found, str):
        return [found]
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return [text for each in inner for text in _texts(each)]
