"""Events on Redis Streams: at least once, and once in effect.

A service publishes in the transaction of its change, and hears what others publish in the transaction of its effect:

    change + outbox ──commit──► relay ──XADD──► stream ──take──► handler: inbox + effect ──commit──► ack
                                (one leader                      (one owner
                                 per service)                     per partition)

event          Event: the payloads that a service sends or reads, each with its type, version and key
envelope       CloudEvent: what travels
partition      which key belongs to which stream
position       where in a stream; the same place after the stream was rebuilt
observer       hooks
tables         outbox, relay and inbox: three tables in each service's own database
publishing/    from a committed transaction to the streams
handling/      from the streams to an effect
operating/     how far behind everybody is, and the dead letters
catalogue      the AsyncAPI document
assembly       opens all of it
"""

from app.events.event import Event
from app.events.handling.handlers import Handlers
from app.events.publishing.outbox import Outbox

__all__ = ["Event", "Handlers", "Outbox"]
