-- All rules. Writes nothing.
--
-- KEYS  1 rules
-- ARGV  1 longest rule in bytes
-- Result  { service, "<revision> <JSON>", … }; one over the bound is left out

local result = {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  if #flat[i + 1] <= tonumber(ARGV[1]) then
    result[#result + 1], result[#result + 2] = flat[i], flat[i + 1]
  end
end
return result
