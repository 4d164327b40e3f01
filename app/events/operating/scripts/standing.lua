-- How far the groups of streams are. Needs nothing that Redis 6.2 does not have: `lag` came with 7.0.
--
-- KEYS  the streams
-- Result  for each stream: { its length, its first id or '', { for each group: { its name, the last id that it was given, how many
--         it was given and has not finished, the first of those or '', the first that it was not given or '' } } }

local function fields(list)
  local found = {}
  for i = 1, #list, 2 do found[list[i]] = list[i + 1] end
  return found
end

local function first(stream, from)
  local found = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)
  return found[1] and found[1][1] or ''
end

local result = {}
for i, stream in ipairs(KEYS) do
  local groups = {}
  if redis.call('EXISTS', stream) == 1 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local named = fields(group)
      local open = named['pending'] > 0 and redis.call('XPENDING', stream, named['name'])[2] or ''
      local given = named['last-delivered-id']
      groups[#groups + 1] = { named['name'], given, named['pending'], open, first(stream, '(' .. given) }
    end
  end
  result[i] = { redis.call('XLEN', stream), first(stream, '-'), groups }
end
return result
