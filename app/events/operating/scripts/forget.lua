-- Removes a group from streams, unless somebody works for it: who does would make it again, from the beginning.
--
-- KEYS  1 … n the locks of its partitions, then the streams
-- ARGV  1 group  2 n
-- Result  on how many streams it was, or -1 if somebody works for it
--
-- Invariants
--   * The streams keep what they hold: should the group come back, it finds all of it.

local locks, removed = tonumber(ARGV[2]), 0
for i = 1, locks do
  if redis.call('EXISTS', KEYS[i]) == 1 then return -1 end
end
for i = locks + 1, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    removed = removed + redis.call('XGROUP', 'DESTROY', KEYS[i], ARGV[1])
  end
end
return removed
