"""How to call.

client      `Mesh`: one call from deadline to reply
retry       what may be tried again, when, and how much of it
transport   one HTTP exchange; the only module that knows aiohttp
reply       what a caller gets back
"""
