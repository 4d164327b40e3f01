"""The door for what comes out of Redis: records, changes and rules are read here, or warned about and left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app import telemetry
from app.mesh.registry import operations, record, rules
from app.mesh.registry.change import Change
from app.mesh.registry.operations import Entry
from app.mesh.registry.record import Instance, Network, PoisonedRecord
from app.mesh.registry.rules import Rule
from app.mesh.registry.view import Key, Update

_log = telemetry.log("mesh.directory")

_WARNED_AT_MOST = 1000
# Some milliseconds at a time: ten thousand records at once would hold up every request of the process.
_SLICE = 50


class Reader:
    """Args: networks: where peers may be."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self._read: dict[Key, tuple[bytes, Instance]] = {}
        self._warned: set[tuple[str, str, int]] = set()

    async def entries(self, entries: Sequence[Entry]) -> list[Instance]:
        """Those that can be believed; the loop gets a turn after every few of them."""
        read: dict[Key, tuple[bytes, Instance]] = {}
        for start in range(0, len(entries), _SLICE):
            if start:
                await asyncio.sleep(0)
            for entry in entries[start : start + _SLICE]:
                if (instance := self._entry(entry)) is not None:
                    read[entry.service, entry.id] = entry.record, instance
        self._read = read
        return [instance for _, instance in read.values()]

    def update(self, change: Change) -> Update:
        """`change`, read; what could not be believed is missing from it."""
        key = (change.service, change.id)
        if change.op == "up":
            instance = self._instance(change.service, change.id, change.body)
            return Update(change.position, change.prev, change.op, key, instance=instance)
        if change.op == "rule":
            return Update(change.position, change.prev, change.op, key, rule=self._rule(change.service, change.body))
        wish = operations.wished(change.position.mark, operations.text(change.body)) if change.op == "wish" else None
        return Update(change.position, change.prev, change.op, key, wish=wish)

    def rules(self, stored: Sequence[tuple[str, bytes]]) -> list[Rule]:
        """Those that can be believed."""
        return [rule for service, body in stored if (rule := self._rule(service, body)) is not None]

    def _entry(self, entry: Entry) -> Instance | None:
        # Of a second snapshot, after a flush say, most of it is as it was.
        stored, known = self._read.get((entry.service, entry.id), (None, None))
        return known if stored == entry.record else self._instance(entry.service, entry.id, entry.record)

    def _instance(self, service: str, instance_id: str, body: bytes) -> Instance | None:
        try:
            instance = record.decode(body, self._networks)
            if (instance.service, instance.id) != (service, instance_id):
                raise PoisonedRecord("it stands under another instance's name")
        except PoisonedRecord as error:
            self._warn(service, instance_id, body, str(error))
            return None
        return instance

    def _rule(self, service: str, body: bytes) -> Rule | None:
        try:
            return rules.decode(service, body)
        except PoisonedRecord as error:
            self._warn(service, "", body, str(error))
            return None

    def _warn(self, service: str, instance_id: str, body: bytes, reason: str) -> None:
        """Once for each poisoned record, not once for each time that it is read."""
        known = (service, instance_id, hash(body))
        if known in self._warned:
            return
        if len(self._warned) >= _WARNED_AT_MOST:
            self._warned.clear()
        self._warned.add(known)
        _log.warning("poisoned record ignored", peer_service=service[:80], peer_id=instance_id[:160], reason=reason)
