"""From a committed transaction to the streams.

outbox       publish and invalidate, within a transaction
ledger       every query of the relay
relay        from the outbox to the streams, in order, and again whatever a stream has lost
streams      what the relay says to Redis
trimming     how much of a stream may go
retention    what has been kept for long enough goes
wake         carries the news of a commit to the relay
scripts/     the atomic steps, in Lua
"""
