-- Stores what was loaded, unless something has happened since the claim that makes it old.
--
-- KEYS  1 cache:val:<key>  2 cache:lock:<key>
-- ARGV  1 the word of the claim  2 its stamp  3 largest value in bytes  4 prefix of tags
--       5 kind  6 fresh_ms  7 usable_ms  8 cost_ms  9 the bytes  10 tag  11 its version at the claim  12 tag …
-- Result  'stored' | 'fenced'
--
-- Invariants
--   * Stored only if the value's stamp and every tag's version are those of the claim.
--   * The lock is given back in either case, if it is still the caller's.
--   * A tag lives at least as long as the values that carry it; before Redis 7.2, whose clock stands still within a script,
--     it may go a millisecond earlier, and its values with it.

local word, tags, usable = ARGV[1], ARGV[4], tonumber(ARGV[7])
if redis.call('GET', KEYS[2]) == word then
  redis.call('DEL', KEYS[2])
end

local _, head = read(KEYS[1], tags, tonumber(ARGV[3]))
if not head or head.s ~= ARGV[2] then
  return 'fenced'
end
local versions = {}
for i = 10, #ARGV, 2 do
  if redis.call('GET', tags .. ARGV[i]) ~= ARGV[i + 1] then
    return 'fenced'
  end
  versions[ARGV[i]] = ARGV[i + 1]
end

for tag in pairs(versions) do
  if redis.call('PTTL', tags .. tag) < usable then
    redis.call('PEXPIRE', tags .. tag, usable)
  end
end
local now = now_ms()
local encoded = encode(ARGV[5], word, now, now + tonumber(ARGV[6]), now + usable, tonumber(ARGV[8]), versions)
redis.call('SET', KEYS[1], encoded .. ARGV[9], 'PX', usable)
return 'stored'
