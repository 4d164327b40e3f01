-- Gives a lease back, if it is still this owner's (compare and delete).
--
-- KEYS  1 lock:<name>
-- ARGV  1 owner
-- Result  1 if it was, 0 if it was not

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
