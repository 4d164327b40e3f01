-- Removes a dead letter for good.
--
-- KEYS  1 dead:<group>
-- ARGV  1 its id
-- Result  1, or 0 if there is no such letter

return redis.call('XDEL', KEYS[1], ARGV[1])
