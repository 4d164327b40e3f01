-- Reads dead letters.
--
-- KEYS  1 dead:<group>
-- ARGV  1 the first id, or '(' and the one before it  2 how many at most
-- Result  { the id with which they end, { { id, fields and values }, … } }

local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then
  if redis.call('EXISTS', KEYS[1]) == 0 then return { '0-0', {} } end
  return redis.error_reply(info.err)
end
local last = '0-0'
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end
return { last, redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2]) }
