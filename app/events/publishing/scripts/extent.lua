-- How long streams are, and how far their groups have got with them.
--
-- KEYS  the streams
-- ARGV  1 the id that stands for: it has finished everything
-- Result  for each stream: { its length, { for each group: { its name, the first id that it has not finished, or the last that
--         it was given } } }

local function fields(list)
  local found = {}
  for i = 1, #list, 2 do found[list[i]] = list[i + 1] end
  return found
end

local result = {}
for i = 1, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    result[i] = { 0, {} }
  else
    local groups, ending = {}, fields(redis.call('XINFO', 'STREAM', KEYS[i]))['last-generated-id']
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[i])) do
      local named = fields(group)
      local at = named['last-delivered-id']
      if named['pending'] > 0 then
        at = redis.call('XPENDING', KEYS[i], named['name'])[2]
      elseif at == ending then
        at = ARGV[1]
      end
      groups[#groups + 1] = { named['name'], at }
    end
    result[i] = { redis.call('XLEN', KEYS[i]), groups }
  end
end
return result
