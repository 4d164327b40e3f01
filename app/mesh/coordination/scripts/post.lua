-- Puts notices on a board and tells every process.
--
-- KEYS  1 board:<name>  2 board:<name>:log
-- ARGV  1 origin  2 log length  3 life of both keys in ms  4 ms of the epoch before which a notice is over
--       5 … pairs: until when, ms of the epoch; the notice
-- Result  how many notices the board holds
--
-- Invariants
--   * A notice is never shortened: of two ends the later one holds.
--   * The log has an entry for every call that said something: who has read the board and then the log misses nothing.
--   * Doing it twice does no harm.

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4])
local names = {}
for i = 5, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], 'GT', ARGV[i], ARGV[i + 1])
  names[#names + 1] = ARGV[i] .. ' ' .. ARGV[i + 1]
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
announce(KEYS[2], ARGV[2], ARGV[3], ARGV[1], names)
return redis.call('ZCARD', KEYS[1])
