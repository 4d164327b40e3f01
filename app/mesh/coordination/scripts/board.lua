-- Reads a board.
--
-- KEYS  1 board:<name>
-- ARGV  1 ms of the epoch before which a notice is over
-- Result  pairs in one list: the notice; until when it stands, ms of the epoch
--
-- Invariant
--   * Nothing is changed.

return redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'WITHSCORES')
