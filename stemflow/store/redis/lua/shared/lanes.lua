-- Ready leaves. A lane is a queue, a priority and a set of rate limits: a list of those that became ready for the first
-- time, in order, and a sorted set of those that came back. An entry is order (5), rev (4), run, path; one that is no
-- longer true of its record is dropped where it is met.

local function lane_keys(queue, lane)
  local name = queue .. '\0' .. lane
  return P .. 'Q' .. name, P .. 'B' .. name
end

local pushed, backed = {}, {}

local function push(queue, lane, entry, order, fresh)
  local list, back = lane_keys(queue, lane)
  local key, into = fresh and list or back, fresh and pushed or backed
  local items = into[key]
  if not items then
    items = {}
    into[key] = items
    call('ZADD', P .. 'l' .. queue, 'NX', 0, lane)
    call('SADD', P .. 'K', queue)
  end
  if not fresh then items[#items + 1] = order end
  items[#items + 1] = entry
end

local function flush_pushes()
  for key, items in pairs(pushed) do each_chunk('RPUSH', key, items) end
  for key, items in pairs(backed) do each_chunk('ZADD', key, items) end
  pushed, backed = {}, {}
end

local function is_live(run, path, entry)
  local value = V[run .. path]
  return value and state_of(value) == READY and sub(value, 8, 11) == sub(entry, 6, 9)
end

-- Moves what is due among the delayed to its lane.
local function wake_delayed(queue, now)
  local key = P .. 'd' .. queue
  repeat
    local due = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, 1000)
    local wanted, found = {}, {}
    for _, member in ipairs(due) do
      local length = unpacked('>I2', member)
      local entry = sub(member, 3 + length)
      local run, path = run_in(sub(entry, 10))
      wanted[#wanted + 1], wanted[#wanted + 2] = run, path
      found[#found + 1] = {sub(member, 3, 2 + length), entry, run, path}
    end
    load(wanted)
    for _, one in ipairs(found) do
      if is_live(one[3], one[4], one[2]) then push(queue, one[1], one[2], (unpacked('>I5', one[2])), false) end
    end
    if #due > 0 then each_chunk('ZREM', key, due) end
  until #due < 1000
end

-- Walks along one source of a lane, the list or the sorted set.
local function walk(key, command, size, only_run, now)
  local self = {gone = {}, drop = 0, solid = true}
  local buffer, at, offset, ended = {}, 1, 0, false

  local function fill()
    local found = call(command, key, offset, offset + size - 1)
    offset, ended, at, buffer = offset + #found, #found < size, 1, {}
    local wanted = {}
    for i, entry in ipairs(found) do
      local run, path = run_in(sub(entry, 10))
      buffer[i] = {entry, run, path}
      if not only_run or run == only_run then wanted[#wanted + 1], wanted[#wanted + 2] = run, path end
    end
    load(wanted)
  end

  local function leave(remove)
    if remove then
      self.gone[#self.gone + 1] = buffer[at][1]
      if self.solid then self.drop = self.drop + 1 end
    else
      self.solid = false
    end
    at = at + 1
  end

  -- The first entry that is true, wanted and not expired; nil when there is none.
  function self.peek()
    while true do
      if at > #buffer then
        if ended then return nil end
        fill()
        if #buffer == 0 then return nil end
      end
      local one = buffer[at]
      if only_run and one[2] ~= only_run then
        leave(false)
      elseif not is_live(one[2], one[3], one[1]) then
        leave(true)
      else
        local value = V[one[2] .. one[3]]
        if not flag(value, EXPIRES) or due_of(value) > now then return one end
        leave(false)
      end
    end
  end

  function self.take() leave(true) end

  function self.finish()
    if command == 'LRANGE' then
      if self.drop > 0 then call('LTRIM', key, self.drop, -1) end
    elseif #self.gone > 0 then
      each_chunk('ZREM', key, self.gone)
    end
    return ended and at > #buffer and self.solid
  end

  return self
end

-- The queues that are wanted: where none is named, those that hold anything; the names of empty ones are dropped. Asked
-- for when everything that this request adds has been added.
local function queues_of(want)
  if want.found then return want.found end
  if want.queues then return want.queues end
  local found = {}
  want.found = found
  for _, queue in ipairs(call('SMEMBERS', P .. 'K')) do
    if call('EXISTS', P .. 'l' .. queue, P .. 'd' .. queue) > 0 then
      found[#found + 1] = queue
    else
      call('SREM', P .. 'K', queue)
    end
  end
  return found
end

local function open_lane(queue, name, size, only_run, now)
  local priority, limits = string.match(name, '^(%-?%d+):(.*)$')
  local list, back = lane_keys(queue, name)
  local lane = {queue = queue, name = name, priority = tonumber(priority)}
  if limits ~= '' then
    lane.limits = cjson.decode(limits)
    for _, one in ipairs(lane.limits) do one.key = one.key or '' end
  end
  lane.fresh = walk(list, 'LRANGE', size, only_run, now)
  lane.back = walk(back, 'ZRANGE', size, only_run, now)
  return lane
end

-- Brings the best entry of a lane to its head; false when there is none.
local function surface(lane)
  local fresh, back = lane.fresh.peek(), lane.back.peek()
  lane.from, lane.head = lane.fresh, fresh
  if back and (not fresh or unpacked('>I5', back[1]) < unpacked('>I5', fresh[1])) then
    lane.from, lane.head = lane.back, back
  end
  lane.order = lane.head and (unpacked('>I5', lane.head[1]))
  return lane.head ~= nil
end

local function best_of(lanes)
  local best = 1
  for i = 2, #lanes do
    local one, other = lanes[i], lanes[best]
    if one.priority > other.priority or (one.priority == other.priority and one.order < other.order) then best = i end
  end
  return best
end

local function lanes_of(want, now)
  local lanes = {}
  local size = math.min(want.limit, 1000)
  for _, queue in ipairs(queues_of(want)) do
    wake_delayed(queue, now)
    flush_pushes()
    for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'l' .. queue, '-inf', now)) do
      lanes[#lanes + 1] = open_lane(queue, name, size, want.only_run, now)
    end
  end
  return lanes
end

-- Up to want.limit entries {entry, run, path, queue}, best first. A lane that must wait is set aside until it may go on.
local function take(want, now)
  local taken, lanes, open = {}, lanes_of(want, now), {}
  local rates = windows(now)
  for _, lane in ipairs(lanes) do
    if surface(lane) then open[#open + 1] = lane end
  end
  while #open > 0 and #taken < want.limit do
    local i = best_of(open)
    local lane = open[i]
    if lane.limits and not rates.admit(lane.limits) then
      call('ZADD', P .. 'l' .. lane.queue, 'XX', rates.next_at(lane.limits), lane.name)
      table.remove(open, i)
    else
      local one = lane.head
      one[4] = lane.queue
      taken[#taken + 1] = one
      lane.from.take()
      if not surface(lane) then table.remove(open, i) end
    end
  end
  for _, lane in ipairs(lanes) do
    local fresh, back = lane.fresh.finish(), lane.back.finish()
    if fresh and back then call('ZREM', P .. 'l' .. lane.queue, lane.name) end
  end
  rates.save()
  return taken
end
