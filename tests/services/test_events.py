"""Who reads an event and who sends it share no code: here they are asked whether they mean the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import service
from app.events import Event
from app.events.event import kind
from app.events.handling.handlers import Handler

SERVICES = {name: service.load(name) for name in service.discover()}
HANDLED = [
    pytest.param(handler, id=f"{name} reads {handler.event.event_type} {handler.event.event_version}")
    for name, this in SERVICES.items()
    for handler in this.handlers or ()
]


def sent(event: type[Event]) -> type[Event]:
    """The class of the service that sends what `event` reads."""
    sender = SERVICES[event.service()].outbox
    found = [] if sender is None else [each for each in sender.sends if kind(each) == kind(event)]
    assert len(found) == 1, f"{event.service()} does not send {event.event_type} version {event.event_version}"
    return found[0]


def test_somebody_reads_something() -> None:
    assert len(HANDLED) >= 6


@pytest.mark.parametrize("handler", HANDLED)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_sent_its_reader_understands(handler: Handler, data: st.DataObject) -> None:
    event = data.draw(st.builds(sent(handler.event)))
    travelled = json.loads(json.dumps(event.model_dump(mode="json")))
    read = handler.event.model_validate(travelled)
    # What the reader has taken of it says the same.
    assert _within(read.model_dump(mode="json"), travelled)


def _within(part: object, whole: object) -> bool:
    """Whether all that `part` says stands in `whole`, which may say more."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _within(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(_within, part, whole))
    return part == whole


@pytest.mark.parametrize("handler", HANDLED)
def test_sender_and_reader_order_an_event_by_the_same(handler: Handler) -> None:
    assert sent(handler.event).event_key == handler.event.event_key
