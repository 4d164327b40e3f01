"""Hypercorn, as one process of a mesh wants it; knows nothing of Flask.

server       Hypercorn, driven
lines        its connections: one write per answer, one sweeper, one end
plain        HTTP/1.1 that leaves nothing to decide: a pure part of what h11 does
http1        the short way for it, and Hypercorn's own for all else
"""
