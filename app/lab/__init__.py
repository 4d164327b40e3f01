"""The laboratory: how fast, how many, how it breaks.

http1      replies of HTTP/1.1, read as they come; no I/O
load       a load generator: closed loop, open loop, burst
figures    medians, ratios, goals and verdicts, as pure functions
bench/     ``./scripts/bench``: this house against others, both sides in one run
"""
