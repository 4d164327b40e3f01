-- Says who would like to have a partition that another process works on.
--
-- KEYS  1 next:<group>:<partition>
-- ARGV  1 who  2 for how long that stands, ms
-- Result  nothing

redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
