"""Who is there: the registry on Redis, and this process's side of it.

record      what an instance says about itself; checked at the door
rules       what an operator says about a service: shares of versions, weights of instances
operations  the scripts as typed operations
scripts/    the atomic steps, in Lua: heartbeat, deregister, sweep, snapshot, laggards, wish, rule
runner      runs the operations, on the loop or in a thread
change      one entry of the log
presence    heartbeats, from a thread of their own
membership  this process's own side: register, acknowledged drain, an operator's wish, leave
view        what is known of the others, as pure values and decisions
group       one service's peers within it, changed without a rebuild
reading     the door for what comes out of Redis
directory   keeps the view current: snapshot, watch, poll, suspects
examiner    looks after suspects
inquiry     evidence for and against suspects
probe       asks one over HTTP who it is
diskcopy    the last known peers and rules on disk
"""
