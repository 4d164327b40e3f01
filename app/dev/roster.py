"""The registry as an operator sees it: who is there, what rules hold, what is wished. Nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app.errors import Conflict, NotFound
from app.mesh.keys import Keys
from app.mesh.registry import operations, record, rules
from app.mesh.registry.operations import Position, WishedState
from app.mesh.registry.record import Instance, Load, PoisonedRecord
from app.mesh.registry.rules import Rule
from app.mesh.registry.runner import BlockingRegistry
from app.settings import RegistrySettings

# Two operators who change one rule at the same moment: the later one starts again from what the other one said.
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Member:
    """One registered process; `age_seconds` since its last heartbeat, by Redis's clock."""

    instance: Instance
    load: Load
    age_seconds: float
    lease_left_seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """The registry at one instant.

    Args:
        members: by service and id; records that may not be believed are left out.
        rules: those that say something, by service.
    """

    position: Position
    members: tuple[Member, ...]
    rules: Mapping[str, Rule]


class Roster:
    """Questions to the registry, and an operator's words, over one connection; made by `opened`.

    Every method raises Unavailable when Redis is away.
    """

    def __init__(self, registry: BlockingRegistry, settings: RegistrySettings) -> None:
        self._registry, self._settings = registry, settings
        self._keys = Keys(settings.namespace)

    def look(self) -> Look:
        snapshot = self._registry.run(operations.snapshot(self._keys))
        members = [_member(entry, snapshot.now_ms, self._settings) for entry in snapshot.entries]
        known = [member for member in members if member is not None]
        known.sort(key=lambda member: (member.instance.service, member.instance.id))
        return Look(snapshot.position, tuple(known), _believed(snapshot.rules))

    def laggards(self, position: Position, *, but: Instance) -> tuple[str, ...] | None:
        """Who has not yet applied the change at `position`, as ``<service>:<id>``; None if that history is over.

        Args:
            but: whom not to ask.
        """
        asked = operations.laggards(
            self._keys, position.epoch, position.seq, mark=position.mark, but=(but.service, but.id)
        )
        answer = self._registry.run(asked)
        return answer.names if answer.known else None

    def wish(self, instance: Instance, state: WishedState) -> None:
        """Ask `instance` to drain, or to be ready again; it hears of it at once.

        Raises:
            NotFound: it is not there any more.
        """
        noted = self._registry.run(operations.wish(self._keys, self._settings, instance.service, instance.id, state))
        if noted.outcome == "absent":
            raise NotFound(f"{instance.id} is not in the registry any more")

    def rule(self, service: str) -> Rule:
        """The service's rule; an empty one if none was ever set."""
        everybodys = self._registry.run(operations.read_rules(self._keys))
        stored = dict(everybodys).get(service)
        if stored is None:
            return Rule(service, 0)
        try:
            return rules.decode(service, stored)
        except PoisonedRecord as error:
            raise Conflict(
                f"The rule of {service} cannot be read ({error}); `mesh weight {service} --clear` removes it"
            ) from error

    def change_rule(self, service: str, words: Sequence[str]) -> Rule:
        """Change the service's rule as `words` say; see `rules.parse`. Returns the rule that holds now.

        Raises:
            InvalidInput: the words make no sense.
            Conflict: it is changed by others all the time.
        """
        for _ in range(ATTEMPTS):
            wanted = rules.parse(words, self.rule(service))
            answer = self._registry.run(operations.put_rule(self._keys, self._settings, wanted))
            if answer.outcome != "conflict":
                return wanted
        raise Conflict(f"The rule of {service} is being changed by others; try again")

    def clear_rule(self, service: str) -> None:
        self._registry.run(operations.clear_rule(self._keys, self._settings, service))


@contextmanager
def opened(redis_url: str, settings: RegistrySettings) -> Iterator[Roster]:
    """A connection for several questions."""
    registry = BlockingRegistry(redis_url)
    try:
        yield Roster(registry, settings)
    finally:
        registry.close()


def read(redis_url: str, settings: RegistrySettings) -> tuple[Member, ...]:
    """All members, by service and id. Raises: Unavailable: Redis is away."""
    with opened(redis_url, settings) as roster:
        return roster.look().members


def _member(entry: operations.Entry, now_ms: int, settings: RegistrySettings) -> Member | None:
    try:
        instance = record.decode(entry.record, settings.allowed_networks)
        beat_ms, load = record.decode_load(entry.load)
    except PoisonedRecord:
        return None
    age, left = now_ms - beat_ms, entry.lease_end_ms - now_ms
    return Member(instance, load, age_seconds=max(0, age) / 1000, lease_left_seconds=left / 1000)


def _believed(stored: Sequence[tuple[str, bytes]]) -> Mapping[str, Rule]:
    found: dict[str, Rule] = {}
    for service, raw in stored:
        try:
            rule = rules.decode(service, raw)
        except PoisonedRecord:
            continue
        if not rule.is_empty:
            found[service] = rule
    return found
