"""The last known peers and rules on disk, so that a process can start while Redis is away."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import orjson

from app import telemetry
from app.mesh.registry import record, rules
from app.mesh.registry.record import Instance, Network, PoisonedRecord
from app.mesh.registry.rules import Rule

P = ParamSpec("P")
T = TypeVar("T")

_log = telemetry.log("mesh.diskcopy")
_FORMAT = 2
_MAX_BYTES = 64 * 1024 * 1024


class Copy(NamedTuple):
    """What was on disk."""

    peers: tuple[Instance, ...] = ()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """One file of one namespace; its records are checked like those of the registry when they are read."""

    path: Path
    namespace: str
    networks: tuple[Network, ...]

    def save(self, peers: Sequence[Instance], known: Sequence[Rule] = ()) -> None:
        """Replace the file as a whole: whoever reads it sees the old one or the new one. Failures are logged."""
        document = {
            "format": _FORMAT,
            "namespace": self.namespace,
            "records": [record.encode(peer).decode() for peer in peers],
            "rules": [[rule.service, f"{rule.revision} {rules.encode(rule).decode()}"] for rule in known],
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._replace(orjson.dumps(document))
        except OSError as error:
            _log.warning("cannot save the directory", path=str(self.path), error=str(error))

    def _replace(self, content: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def load(self) -> Copy:
        """What was saved; nothing, with a warning, if the file cannot be read or is not ours."""
        try:
            if self.path.stat().st_size > _MAX_BYTES:
                raise ValueError("too large")
            document = orjson.loads(self.path.read_bytes())
            if document["format"] != _FORMAT or document["namespace"] != self.namespace:
                raise ValueError("another format or namespace")
            peers = [self._believed(record.decode, str(raw).encode(), self.networks) for raw in document["records"]]
            stored = [self._believed(rules.decode, str(name), str(raw).encode()) for name, raw in document["rules"]]
            return Copy(tuple(filter(None, peers)), tuple(filter(None, stored)))
        except FileNotFoundError:
            return Copy()
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("cannot read the saved directory", path=str(self.path), error=str(error))
            return Copy()

    def _believed(self, decode: Callable[P, T], *args: P.args, **names: P.kwargs) -> T | None:
        try:
            return decode(*args, **names)
        except PoisonedRecord as error:
            _log.warning("poisoned record ignored", path=str(self.path), reason=str(error))
            return None
