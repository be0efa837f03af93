-- Ready leaves. A lane is a queue, a level (a priority and a turn) and a set of rate limits: a list of those that became
-- ready for the first time, in order, and a sorted set of those that came back. An entry is order (5), rev (4), run, path; one that is no
-- longer true of its record is dropped where it is met. Lanes without limits are named in l<queue>; for the others see
-- lane_index.lua.

local function lane_keys(queue, lane)
  local name = queue .. '\0' .. lane
  return P .. KEY.ready .. name, P .. KEY.returned .. name
end

local pushed, backed = {}, {}

local function push(queue, lane, entry, order, fresh)
  local list, back = lane_keys(queue, lane)
  local key, into = fresh and list or back, fresh and pushed or backed
  local items = into[key]
  if not items then
    items = {}
    into[key] = items
    call('SADD', P .. KEY.queues, queue)
  end
  if not is_limited(lane) then
    if #items == 0 then call('ZADD', P .. KEY.unlimited_lanes .. queue, 'NX', 0, lane) end
  elseif #items == 0 or not fresh then
    join(queue, lane, rank_of(lane, order))
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
  if not value or sub(value, 8, 11) ~= sub(entry, 6, 9) then return false end
  -- A state that is none is leased, so that a worker reports the record as damaged.
  return state_of(value) == STATE.ready or state_of(value) > STATE.cancelled
end

-- Moves what is due among the delayed to its lane.
local function wake_delayed(queue, now)
  local key = P .. KEY.delayed .. queue
  repeat
    local due = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, 1000)
    local wanted, found = {}, {}
    for _, member in ipairs(due) do
      local length = #member > 1 and unpacked('>I2', member) or 0
      local entry = sub(member, 3 + length)
      local run, path = run_in(sub(entry, 10))
      wanted[#wanted + 1], wanted[#wanted + 2] = run, path
      found[#found + 1] = {lane = sub(member, 3, 2 + length), entry = entry, run = run, path = path}
    end
    load(wanted)
    for _, one in ipairs(found) do
      local entry = one.entry
      if is_live(one.run, one.path, entry) then push(queue, one.lane, entry, (unpacked('>I5', entry)), false) end
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

  local function pass(remove)
    if remove then
      self.gone[#self.gone + 1] = buffer[at][ENTRY.entry]
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
      local run, path = one[ENTRY.run], one[ENTRY.path]
      if only_run and run ~= only_run then
        pass(false)
      elseif not is_live(run, path, one[ENTRY.entry]) then
        pass(true)
      else
        local value = V[run .. path]
        if not flag(value, FLAG.expires) or due_of(value) > now then return one end
        pass(true)
      end
    end
  end

  function self.take() pass(true) end

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

local function is_wanted(want, place)
  local queue, task = split(place)
  for _, one in ipairs(want.without or {}) do
    if one == queue then return false end
  end
  if want.tasks and not has_task(want.tasks, task) then return false end
  if not want.queues then return true end
  for _, one in ipairs(want.queues) do
    if one == queue then return true end
  end
  return false
end

-- The places that are wanted and hold anything; the names of empty ones are dropped. Asked for when everything that this
-- request adds has been added.
local function queues_of(want)
  if want.found then return want.found end
  local found = {}
  want.found = found
  for _, queue in ipairs(call('SMEMBERS', P .. KEY.queues)) do
    local keys = {P .. KEY.unlimited_lanes .. queue, P .. KEY.delayed .. queue, P .. KEY.limited_lanes .. queue}
    if call('EXISTS', unpack(keys)) > 0 then
      if is_wanted(want, queue) then found[#found + 1] = queue end
    else
      call('SREM', P .. KEY.queues, queue)
    end
  end
  return found
end

local function limits_of(name)
  local readable, limits = pcall(cjson.decode, sub(name, (string.find(name, ':', 1, true) or 0) + 1))
  if not readable or type(limits) ~= 'table' then return {} end
  for _, one in ipairs(limits) do one.key = one.key or '' end
  return limits
end

local function open_lane(queue, name, size, only_run, now, limits)
  local list, back = lane_keys(queue, name)
  local lane = {queue = queue, name = name, level = level_of(name), limits = limits}
  lane.fresh = walk(list, 'LRANGE', size, only_run, now)
  lane.back = walk(back, 'ZRANGE', size, only_run, now)
  return lane
end

-- Brings the best entry of a lane to its head; false when there is none.
local function surface(lane)
  local fresh, back = lane.fresh.peek(), lane.back.peek()
  lane.from, lane.head = lane.fresh, fresh
  if back and (not fresh or unpacked('>I5', back[ENTRY.entry]) < unpacked('>I5', fresh[ENTRY.entry])) then
    lane.from, lane.head = lane.back, back
  end
  lane.order = lane.head and (unpacked('>I5', lane.head[ENTRY.entry]))
  return lane.head ~= nil
end

local function best_of(lanes, by_age)
  local best = 1
  for i = 2, #lanes do
    local one, other = lanes[i], lanes[best]
    local same = by_age or one.level == other.level
    if (same and one.order < other.order) or (not same and one.level > other.level) then best = i end
  end
  return best
end

-- The lanes without limits that hold something; for a single run all lanes. They are read level by level, the highest
-- first: `open` holds those that were read and have something to lease, `all` those that were read.
local function lanes_of(want, now)
  local self, found, at = {open = {}, all = {}}, {}, 1
  for _, queue in ipairs(queues_of(want)) do
    wake_delayed(queue, now)
    flush_pushes()
    for _, name in ipairs(call('ZRANGE', P .. KEY.unlimited_lanes .. queue, 0, -1)) do
      found[#found + 1] = {level = level_of(name), queue = queue, name = name}
    end
    for _, name in ipairs(want.only_run and call('HKEYS', P .. KEY.limited_lanes .. queue) or {}) do
      found[#found + 1] = {level = level_of(name), queue = queue, name = name, limits = limits_of(name)}
    end
  end
  table.sort(found, function(one, other) return one.level > other.level end)

  -- The lanes that may hold the best entry, or, where `all` is true, every lane.
  function self.read(all)
    while found[at] and (all or #self.open == 0 or found[at].level == self.open[1].level) do
      local one = found[at]
      local lane = open_lane(one.queue, one.name, math.min(want.limit, 1000), want.only_run, now, one.limits)
      self.all[#self.all + 1], at = lane, at + 1
      if surface(lane) then self.open[#self.open + 1] = lane end
    end
    return self.open
  end

  return self
end

local function close(lane)
  local fresh, back = lane.fresh.finish(), lane.back.finish()
  if not fresh or not back then return end
  if lane.limits then
    leave(lane.queue, lane.name)
  else
    call('ZREM', P .. KEY.unlimited_lanes .. lane.queue, lane.name)
  end
end

local function take_head(lane, taken)
  lane.head[ENTRY.queue] = lane.queue
  taken[#taken + 1] = lane.head
  lane.from.take()
end

local function take_from(open, i, taken)
  take_head(open[i], taken)
  if not surface(open[i]) then table.remove(open, i) end
end

-- Tries the best entry of a limited lane.
local function try(lane, rank, rates, taken)
  local queue, name = lane.queue, lane.name
  if not surface(lane) then
    leave(queue, name)
  elseif rank_of(name, lane.order) > rank then
    index(queue, name, rank_of(name, lane.order), limit_of(queue, name))
  elseif rates.admit(lane.limits) then
    take_head(lane, taken)
    if surface(lane) then index(queue, name, rank_of(name, lane.order), '') else leave(queue, name) end
  else
    local limit, until_ms = rates.obstacle(lane.limits)
    index(queue, name, rank, limit)
    block(queue, limit, until_ms)
  end
end

-- The best lane of all queues: {queue, name, rank}, or nil.
local function best_index(firsts)
  local best
  for queue, found in pairs(firsts) do
    if found == true then
      local name, rank = first(queue)
      found = name and {queue, name, rank}
      firsts[queue] = found
    end
    if found and (not best or found[3] < best[3]) then best = found end
  end
  return best
end

-- Those that became ready first, whatever their level; see `Want.oldest`.
local function take_oldest(want, taken, lanes)
  while #taken < math.min(want.oldest or 0, want.limit) do
    local open = lanes.read(true)
    if #open == 0 then return end
    take_from(open, best_of(open, true), taken)
  end
end

local function take_best(want, now, rates, taken, unlimited)
  local lanes, firsts = {}, {}
  for _, queue in ipairs(queues_of(want)) do
    if call('EXISTS', P .. KEY.limited_lanes .. queue) == 1 then
      open_limits(queue, now)
      firsts[queue] = true
    end
  end
  while #taken < want.limit do
    local open = unlimited.read()
    local plain, found = #open > 0 and best_of(open), best_index(firsts)
    if not plain and not found then break end
    if plain and not (found and found[3] < rank_of(open[plain].name, open[plain].order)) then
      take_from(open, plain, taken)
    else
      local queue, name = found[1], found[2]
      local key = queue .. '\0' .. name
      if not lanes[key] then
        local limits = limits_of(name)
        lanes[key] = open_lane(queue, name, math.min(want.limit, rates.room(limits)) + 1, false, now, limits)
      end
      try(lanes[key], found[3], rates, taken)
      firsts[queue] = true
    end
  end
  for _, lane in pairs(lanes) do
    lane.fresh.finish()
    lane.back.finish()
  end
end

-- For a single run; the index of lanes is not changed. When one that must wait may go on.
local function take_of_run(want, rates, taken, lanes)
  local soonest
  while #taken < want.limit do
    local open = lanes.read()
    if #open == 0 then break end
    local i = best_of(open)
    local lane = open[i]
    if lane.limits and not rates.admit(lane.limits) then
      local _, until_ms = rates.obstacle(lane.limits)
      soonest = math.min(soonest or until_ms, until_ms)
      table.remove(open, i)
    else
      take_from(open, i, taken)
    end
  end
  return soonest
end

-- Up to want.limit entries (ENTRY), best first; and when the lanes of a single run may go on.
local function take(want, now)
  local taken, lanes, blocked = {}, lanes_of(want, now), nil
  local rates = windows(now)
  if want.only_run then
    blocked = take_of_run(want, rates, taken, lanes)
  else
    take_oldest(want, taken, lanes)
    take_best(want, now, rates, taken, lanes)
  end
  for _, lane in ipairs(lanes.all) do close(lane) end
  rates.save()
  return taken, blocked
end
