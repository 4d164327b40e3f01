"""What a request passes before Flask.

entry        context, gate, time bound, metrics and access log around everything
shedding     the gate: who comes in, who waits, who is turned away
limiter      how many requests may wait for an answer at once: a pure decision
intake       a body as the client gets it to us: how slow it may be
"""
