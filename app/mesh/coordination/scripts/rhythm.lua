-- When a periodic job runs next, so that a new leader keeps the rhythm of the one before. Only a leader asks.
--
-- KEYS  1 job:<name>
-- ARGV  1 ms until the next run, to remember that; or none, to ask
-- Result  ms until the next run, 0 if it is due; the key lives exactly as long

if ARGV[1] then
  redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
  return tonumber(ARGV[1])
end
return math.max(0, redis.call('PTTL', KEYS[1]))
