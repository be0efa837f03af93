-- Where limited lanes stand, as `stemflow.store.lane_choice` has it: open, or behind a limit (a gate) that keeps them waiting.
--   o<queue>           what is open, by rank: 'l' and a lane, or 'g' and a gate that is not shut, which is as good as the
--                      best lane behind it; ranks may be too good
--   G<queue> 0 <gate>  the lanes behind a gate, by rank
--   u<queue>           the gates that are shut, by the instant at which they open
--   H<queue>           lane -> the gate behind which it stands, '' where it is open
-- A rank: (9 - priority) * 2 ^ 40 + order.

local function is_limited(lane) return byte(lane, #lane) ~= 58 end

local function rank_of(lane, order) return (9 - tonumber(string.match(lane, '^%-?%d+'))) * 1099511627776 + order end

local function behind(queue, gate) return P .. 'G' .. queue .. '\0' .. gate end

local function parse_url(queue, lane) return call('HGET', P .. 'H' .. queue, lane) end

-- Something became ready in a lane.
local function join(queue, lane, rank)
  local open, gate = P .. 'o' .. queue, parse_url(queue, lane)
  if not gate then
    call('HSET', P .. 'H' .. queue, lane, '')
    call('ZADD', open, rank, 'l' .. lane)
  elseif gate == '' then
    call('ZADD', open, 'LT', rank, 'l' .. lane)
  else
    call('ZADD', behind(queue, gate), 'LT', rank, lane)
    if call('ZSCORE', open, 'g' .. gate) then call('ZADD', open, 'LT', rank, 'g' .. gate) end
  end
end

-- The lane stands nowhere; nor does a gate behind which there is nobody.
local function leave(queue, lane)
  local gate = parse_url(queue, lane)
  call('HDEL', P .. 'H' .. queue, lane)
  if gate == '' then
    call('ZREM', P .. 'o' .. queue, 'l' .. lane)
  elseif gate then
    call('ZREM', behind(queue, gate), lane)
    if call('EXISTS', behind(queue, gate)) == 0 then
      call('ZREM', P .. 'o' .. queue, 'g' .. gate)
      call('ZREM', P .. 'u' .. queue, gate)
    end
  end
end

local function stand(queue, lane, rank, gate)
  if parse_url(queue, lane) ~= gate then leave(queue, lane) end
  call('HSET', P .. 'H' .. queue, lane, gate)
  if gate == '' then
    call('ZADD', P .. 'o' .. queue, rank, 'l' .. lane)
  else
    call('ZADD', behind(queue, gate), rank, lane)
  end
end

local function shut(queue, gate, till)
  call('ZREM', P .. 'o' .. queue, 'g' .. gate)
  call('ZADD', P .. 'u' .. queue, till, gate)
end

local function unshut(queue, now)
  for _, gate in ipairs(call('ZRANGEBYSCORE', P .. 'u' .. queue, '-inf', now)) do
    local best = call('ZRANGE', behind(queue, gate), 0, 0, 'WITHSCORES')
    call('ZREM', P .. 'u' .. queue, gate)
    if best[1] then call('ZADD', P .. 'o' .. queue, best[2], 'g' .. gate) end
  end
end

-- The best lane that may start, and its rank.
local function first(queue)
  while true do
    local found = call('ZRANGE', P .. 'o' .. queue, 0, 0, 'WITHSCORES')
    if not found[1] then return nil end
    local name, rank = sub(found[1], 2), tonumber(found[2])
    if byte(found[1]) == 108 then return name, rank end
    local best = call('ZRANGE', behind(queue, name), 0, 0, 'WITHSCORES')
    if not best[1] then
      call('ZREM', P .. 'o' .. queue, found[1])
    elseif tonumber(best[2]) > rank then
      call('ZADD', P .. 'o' .. queue, best[2], found[1])
    else
      return best[1], rank
    end
  end
end
