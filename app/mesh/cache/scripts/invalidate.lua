-- Invalidates tags and deletes values, and tells every process: one message, however many they are.
--
-- KEYS  1 cache:log  2 … the keys of those tags and values
-- ARGV  1 origin  2 log length  3 log life in ms  4 … their names in the log
-- Result  1
--
-- Invariants
--   * A value with one of these tags never counts again, and a load that began before is refused by `store`.
--   * Doing it twice does no harm.

for i = 2, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
local names = {}
for i = 4, #ARGV do
  names[i - 3] = ARGV[i]
end
announce(KEYS[1], ARGV[2], ARGV[3], ARGV[1], names)
return 1
