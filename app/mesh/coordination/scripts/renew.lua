-- Renews a lease, if it is still this owner's.
--
-- KEYS  1 lock:<name>
-- ARGV  1 owner  2 ttl_ms
-- Result  1 if it is, 0 if it is not: another's, or nobody's

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
