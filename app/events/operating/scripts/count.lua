-- Counts entries of a stream, a bounded number at a time: others want Redis, too.
--
-- KEYS  1 the stream
-- ARGV  1 behind this id  2 how many at most
-- Result  { how many, the last of them or '' }

local found = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
return { #found, #found > 0 and found[#found][1] or '' }
