"""Who is there: the registry on Redis, and this process's side of it.

record      what an instance says about itself; checked at the door
operations  the scripts as typed operations, run on the loop or in a thread
scripts/    the atomic steps, in Lua: heartbeat, deregister, sweep, snapshot
presence    this process in the registry: heartbeats from a thread of their own
view        what is known of the others, as pure values and decisions
directory   keeps the view current: snapshot, watch, poll
diskcopy    the last known peers on disk
"""
