-- Stores a value that somebody has set, whatever was there, and tells every process.
--
-- KEYS  1 cache:val:<key>  2 cache:log
-- ARGV  1 the caller's word (random)  2 origin  3 name of the key in the log  4 log length  5 log life in ms
--       6 prefix of tags  7 kind  8 fresh_ms  9 usable_ms  10 the bytes  11 … tags
-- Result  1
--
-- Invariants
--   * The stamp is new, so a load that began before is refused by `store`.
--   * Every key written has a TTL.

local usable = tonumber(ARGV[9])
local _, versions = hold_tags(ARGV[6], 11, ARGV[1], ARGV[9])
local now = now_ms()
local head = encode(ARGV[7], ARGV[1], now, now + tonumber(ARGV[8]), now + usable, 0, versions)
redis.call('SET', KEYS[1], head .. ARGV[10], 'PX', usable)
announce(KEYS[2], ARGV[4], ARGV[5], ARGV[2], { ARGV[3] })
return 1
