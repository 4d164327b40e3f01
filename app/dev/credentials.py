"""What a process of the demo is told of the issuer: who it is, and with what it proves itself there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from app.dev.secrets import Secrets
from app.service import IDENTITY
from app.settings import Settings

ISSUER = "MESH_AUTH__ISSUER"
CLIENT_SECRET = "MESH_AUTH__CLIENT_SECRET"  # noqa: S105  # a name, not a secret
KEY_SECRET = "MESH_IDENTITY__KEY_SECRET"  # noqa: S105


def variables(service: str, *, issuer: str, known: Secrets | None, given: Iterable[str]) -> Mapping[str, str]:
    """The environment of a process of `service`, as far as its user has not set it.

    Args:
        issuer: the public address.
        known: the demo's secrets, if there is a demo.
        given: the names of the variables that the user has set; theirs win.
    """
    ours = {ISSUER: issuer}
    if known is not None and service in known.clients:
        ours[CLIENT_SECRET] = known.clients[service]
    if known is not None and service == IDENTITY:
        ours[KEY_SECRET] = known.key_secret
    # As settings are read: in any case.
    taken = {name.upper() for name in given}
    return {name: value for name, value in ours.items() if name not in taken}


def told(settings: Settings, variables: Mapping[str, str]) -> Settings:
    """The settings as they would have been read with these variables in the environment."""
    auth: dict[str, object] = {}
    if ISSUER in variables:
        auth["issuer"] = variables[ISSUER]
    if CLIENT_SECRET in variables:
        auth["client_secret"] = SecretStr(variables[CLIENT_SECRET])
    changed: dict[str, object] = {"auth": settings.auth.model_copy(update=auth)}
    if KEY_SECRET in variables:
        key = SecretStr(variables[KEY_SECRET])
        changed["identity"] = settings.identity.model_copy(update={"key_secret": key})
    return settings.model_copy(update=changed)
