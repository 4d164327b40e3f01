-- Takes a lease for one owner, with a fencing token that is larger than every earlier one of that name.
--
-- KEYS  1 lock:<name>  2 fence:<name>
-- ARGV  1 owner (random)  2 ttl_ms  3 how long the last token is remembered, ms
-- Result  { token, 0 }, or { 0, ms until the present owner's lease ends }
--
-- Invariants
--   * At most one owner at a time; asking again with the same owner renews and gives the same token.
--   * A token is the time in microseconds, or one more than the last one if that is larger: it grows over expiry,
--     over a flushed Redis, and over a clock that was set back as long as the last token is remembered.
--   * Both keys have a TTL.

local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return { 0, redis.call('PTTL', KEYS[1]) }
end

local last = tonumber(redis.call('GET', KEYS[2]) or '')
local token = last
if not owner or not last then
  local t = redis.call('TIME')
  token = math.max((last or 0) + 1, tonumber(t[1]) * 1000000 + tonumber(t[2]))
end
redis.call('SET', KEYS[2], string.format('%.0f', token), 'PX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { token, 0 }
