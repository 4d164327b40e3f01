-- Takes from a token bucket: GCRA (ITU-T I.371), which is a token bucket whose whole state is one point in time.
--
-- KEYS  1 rate:<name>:<caller>
-- ARGV  1 microseconds per token  2 size of the bucket in tokens  3 tokens to take
-- Result  { 1 taken | 0 refused, whole tokens left, us until this many may be taken, us until the bucket is full }
--
-- Invariants
--   * The key holds when the bucket will be full, and lives until then: an untouched caller costs nothing.
--   * A clock that jumps back costs a caller at most one whole bucket.

local step, size, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local full = tonumber(redis.call('GET', KEYS[1]) or '') or now
full = math.min(math.max(full, now), now + step * size)

local next_full = full + step * cost
local wait = next_full - step * size - now
if wait > 0 then
  return { 0, math.floor((now + step * size - full) / step), math.ceil(wait), math.ceil(full - now) }
end
redis.call('SET', KEYS[1], string.format('%.0f', next_full), 'PX', math.max(1, math.ceil((next_full - now) / 1000)))
return { 1, math.floor((now + step * size - next_full) / step), 0, math.ceil(next_full - now) }
