"""The last known peers on disk, so that a process can start while Redis is away."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app import telemetry
from app.mesh.registry import record
from app.mesh.registry.record import Instance, Network, PoisonedRecord

_log = telemetry.log("mesh.diskcopy")
_FORMAT = 1
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """One file of one namespace; its records are checked like those of the registry when they are read."""

    path: Path
    namespace: str
    networks: tuple[Network, ...]

    def save(self, peers: Sequence[Instance]) -> None:
        """Replace the file as a whole: whoever reads it sees the old one or the new one. Failures are logged."""
        document = {
            "format": _FORMAT,
            "namespace": self.namespace,
            "records": [record.encode(peer).decode() for peer in peers],
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

    def load(self) -> tuple[Instance, ...]:
        """The saved peers; none, with a warning, if the file cannot be read or is not ours."""
        try:
            if self.path.stat().st_size > _MAX_BYTES:
                raise ValueError("too large")
            document = orjson.loads(self.path.read_bytes())
            if document["format"] != _FORMAT or document["namespace"] != self.namespace:
                raise ValueError("another format or namespace")
            return tuple(peer for raw in document["records"] if (peer := self._read(raw)) is not None)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("cannot read the saved directory", path=str(self.path), error=str(error))
            return ()

    def _read(self, raw: Any) -> Instance | None:
        try:
            return record.decode(str(raw).encode(), self.networks)
        except PoisonedRecord as error:
            _log.warning("poisoned record ignored", path=str(self.path), reason=str(error))
            return None
