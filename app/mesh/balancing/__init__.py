"""Whom to pick.

balancer     `Balancer`: takes tables, gives picks
pick         one request at one peer, and what became of it
pool         the peers of a service, sorted by version and zone; who is in, who is out
strategies   power of two choices with peak EWMA, least in flight, round robin, rendezvous hash
endpoint     what this process knows of one peer
warden       hands results to the judges, takes peers out and in
outlier      judge: ejection of a peer that fails or falls silent
breaker      judge: circuit breaker, for a peer here and for a whole service in `calling`
backoff      how long somebody stays out
candidate    the facts of a choice, for `explain`
policy       all numbers
"""
