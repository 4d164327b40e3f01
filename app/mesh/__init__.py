"""The telephone room: who is there, whom to call, how to call.

keys          every Redis key, and the data model
registry/     who is there
balancing/    whom to pick
calling/      how to call
cache/        values that are dear to make
coordination/ one at a time, one for all, so many per second
lag           how late the event loop wakes up
observer      hooks for metrics
assembly      `open_mesh`: puts them together
"""

from app.mesh.assembly import new_instance_id, open_mesh
from app.mesh.calling.client import Mesh
from app.mesh.calling.explain import Story, Trace
from app.mesh.calling.reply import Reply, StreamedReply
from app.mesh.registry.record import Instance

__all__ = ["Instance", "Mesh", "Reply", "Story", "StreamedReply", "Trace", "new_instance_id", "open_mesh"]
