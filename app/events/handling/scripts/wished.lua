-- Who would like to have a partition.
--
-- KEYS  1 next:<group>:<partition>
-- Result  who, or nothing

return redis.call('GET', KEYS[1])
