-- Entries are done. What is read by one group only, once, is also deleted.
--
-- KEYS  1 the stream
-- ARGV  1 group  2 1 to delete them, else 0  3 … ids
-- Result  how many were acknowledged

local ids = {}
for i = 3, #ARGV do ids[#ids + 1] = ARGV[i] end
local done = redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
if ARGV[2] == '1' then redis.call('XDEL', KEYS[1], unpack(ids)) end
return done
