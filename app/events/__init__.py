"""Events on Redis Streams: at least once, and once in effect.

A service publishes in the transaction of its change, and hears what others publish in the transaction of its effect:

    change + outbox ──commit──► relay ──XADD──► stream ──take──► handler: inbox + effect ──commit──► ack
                                (one leader                      (one owner
                                 per service)                     per partition)

event          Event: the payloads that a service sends or reads, each with its type, version and key
envelope       CloudEvent: what travels
partition      which key belongs to which stream
position       where in a stream; the same place after the stream was rebuilt
tables         outbox, relay and inbox: three tables in each service's own database
outbox         publish and invalidate, within a transaction
ledger         every query of the relay
relay          from the outbox to the streams, in order, and again whatever a stream has lost
streams        what the relay says to Redis
trimming       how much of a stream may go
handlers       who handles which event
inbox          whether an event has had its effect
retrying       what a failure is followed by: another try, or the dead letters
lane           the events of one key, one after the other
group          what a consumer says to Redis
worker         one partition of all streams that a service hears
wishes         who would like to have a partition
consumer       which partitions this process works on
dead           dead letters: list, show, replay, drop
survey         how far behind everybody is
surveyor       asks Redis for that, and has a group forgotten
tail           what is published, as it comes
meter          how much waits, every few seconds
catalogue      the AsyncAPI document
wake           carries the news of a commit to the relay
desk           one event: handled, tried again, or given up
retention      what has been kept for long enough goes
observer       hooks
assembly       opens all of it
scripts/       the atomic steps, in Lua
"""

from app.events.event import Event
from app.events.handlers import Handlers
from app.events.outbox import Outbox

__all__ = ["Event", "Handlers", "Outbox"]
