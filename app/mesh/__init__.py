"""The telephone room: who is there, whom to call, how to call.

keys        every Redis key, and the data model
scripts/    the atomic steps, in Lua: heartbeat, deregister, sweep, snapshot
record      what an instance says about itself; checked at the door
registry    the scripts as typed operations, run on the loop or in a thread
presence    this process in the registry: heartbeats from a thread of their own
lag         how late the event loop wakes up
view        what is known of the others, as pure values and decisions
directory   keeps the view current: snapshot, watch, poll
diskcopy    the last known peers on disk
balancer    whom to pick: power of two choices, peak EWMA
retry       what may be tried again, when, and how much of it
transport   one HTTP exchange; the only module that knows aiohttp
reply       what a caller gets back
client      `Mesh`: one call from deadline to reply
observer    hooks for metrics
assembly    `open_mesh`: puts them together
"""

from app.mesh.assembly import new_instance_id, open_mesh
from app.mesh.client import Mesh
from app.mesh.record import Instance
from app.mesh.reply import Reply, StreamedReply

__all__ = ["Instance", "Mesh", "Reply", "StreamedReply", "new_instance_id", "open_mesh"]
