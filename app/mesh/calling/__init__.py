"""How to call.

client      `Mesh`: what can be asked, with all options
call        one call while it lasts
attempts    a call's attempts: at whom, for how long, what follows each
retry       what an attempt's end means, and what may follow: the table
budget      how many repetitions a service gets
latency     how long calls take lately
target      one service as this process calls it: its breaker, budget and latencies
extras      what a call may ask for beyond being made, around its attempts:
  flight      identical calls wait for one answer
  hedge       a second runner when the first is late
  stale       the last good replies
explain     how a call came to its answer
headers     what a call says of itself on the wire
exchange    what a transport is: `Request`, `Exchange`, `Transport`
transport   one HTTP exchange; the only module that knows aiohttp
coding      undoes a body's coding
reply       what a caller gets back
"""
