-- The index of limited lanes, as `stemflow.store.lane_choice` has it: a lane waits for nothing, or for a limit. In the set
-- of open lanes are `l` and a lane, or `g` and a limit that is not blocked, which ranks as the best lane that waits for
-- it; ranks may be too good. A rank: (highest level - level) * 2 ^ 40 + order.

local function is_limited(lane) return byte(lane, #lane) ~= 58 end

local function level_of(lane) return tonumber(string.match(lane, '^%-?%d+')) end

local function rank_of(lane, order) return (LIMIT.highest_level - level_of(lane)) * 1099511627776 + order end

local function waiting_for(queue, limit) return P .. KEY.blocked_lanes .. queue .. '\0' .. limit end

local function limit_of(queue, lane) return call('HGET', P .. KEY.limited_lanes .. queue, lane) end

-- Something became ready in a lane.
local function join(queue, lane, rank)
  local open, limit = P .. KEY.open_lanes .. queue, limit_of(queue, lane)
  if not limit then
    call('HSET', P .. KEY.limited_lanes .. queue, lane, '')
    call('ZADD', open, rank, 'l' .. lane)
  elseif limit == '' then
    call('ZADD', open, 'LT', rank, 'l' .. lane)
  else
    call('ZADD', waiting_for(queue, limit), 'LT', rank, lane)
    if call('ZSCORE', open, 'g' .. limit) then call('ZADD', open, 'LT', rank, 'g' .. limit) end
  end
end

-- Takes a lane out of the index, and a limit that no lane waits for.
local function leave(queue, lane)
  local limit = limit_of(queue, lane)
  call('HDEL', P .. KEY.limited_lanes .. queue, lane)
  if limit == '' then
    call('ZREM', P .. KEY.open_lanes .. queue, 'l' .. lane)
  elseif limit then
    call('ZREM', waiting_for(queue, limit), lane)
    if call('EXISTS', waiting_for(queue, limit)) == 0 then
      call('ZREM', P .. KEY.open_lanes .. queue, 'g' .. limit)
      call('ZREM', P .. KEY.blocked_limits .. queue, limit)
    end
  end
end

local function index(queue, lane, rank, limit)
  if limit_of(queue, lane) ~= limit then leave(queue, lane) end
  call('HSET', P .. KEY.limited_lanes .. queue, lane, limit)
  if limit == '' then
    call('ZADD', P .. KEY.open_lanes .. queue, rank, 'l' .. lane)
  else
    call('ZADD', waiting_for(queue, limit), rank, lane)
  end
end

local function block(queue, limit, until_ms)
  call('ZREM', P .. KEY.open_lanes .. queue, 'g' .. limit)
  call('ZADD', P .. KEY.blocked_limits .. queue, until_ms, limit)
end

local function open_limits(queue, now)
  for _, limit in ipairs(call('ZRANGEBYSCORE', P .. KEY.blocked_limits .. queue, '-inf', now)) do
    local best = call('ZRANGE', waiting_for(queue, limit), 0, 0, 'WITHSCORES')
    call('ZREM', P .. KEY.blocked_limits .. queue, limit)
    if best[1] then call('ZADD', P .. KEY.open_lanes .. queue, best[2], 'g' .. limit) end
  end
end

-- The best lane that may start, and its rank.
local function first(queue)
  while true do
    local found = call('ZRANGE', P .. KEY.open_lanes .. queue, 0, 0, 'WITHSCORES')
    if not found[1] then return nil end
    local name, rank = sub(found[1], 2), tonumber(found[2])
    if byte(found[1]) == 108 then return name, rank end
    local best = call('ZRANGE', waiting_for(queue, name), 0, 0, 'WITHSCORES')
    if not best[1] then
      call('ZREM', P .. KEY.open_lanes .. queue, found[1])
    elseif tonumber(best[2]) > rank then
      call('ZADD', P .. KEY.open_lanes .. queue, best[2], found[1])
    else
      return best[1], rank
    end
  end
end
