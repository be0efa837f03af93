#!lua flags=no-writes
-- The lease of each of some leaves, or its place in its queue.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {now_ms or 0, {leaf, ...}}; see LEAF in layout.py; limits as in the name of a lane
-- Answers  {now_ms, lease_until_ms, ahead, ...}; -1 is none. Entries that are no longer true of their records count.

--@include records
--@include clock

local request = cmsgpack.unpack(ARGV[1])
local leaves = request[STATUS.leaves]
local answer = {clock(request[STATUS.now_ms])}

local lanes_by_queue = {}

local function add_lanes_of(place, lanes)
  local names = call('ZRANGE', P .. KEY.unlimited_lanes .. place, 0, -1)
  for _, name in ipairs(call('HKEYS', P .. KEY.limited_lanes .. place)) do names[#names + 1] = name end
  for _, name in ipairs(names) do
    local colon = string.find(name, ':', 1, true)
    local key = place .. '\0' .. name
    lanes[#lanes + 1] = {tonumber(sub(name, 1, colon - 1)), sub(name, colon + 1), P .. KEY.ready .. key,
      P .. KEY.returned .. key}
  end
end

-- The lanes of a queue, of all its places: {level, limits, list, sorted set}.
local function lanes_of(queue)
  local lanes = lanes_by_queue[queue]
  if lanes then return lanes end
  lanes = {}
  lanes_by_queue[queue] = lanes
  for _, place in ipairs(call('SMEMBERS', P .. KEY.queues)) do
    if (string.match(place, '^(.*)\31[^\31]*$') or place) == queue then add_lanes_of(place, lanes) end
  end
  return lanes
end

-- How many entries of a list, which is in order, come before `order`.
local function before(list, order)
  local low, high = 0, call('LLEN', list)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if unpacked('>I5', call('LINDEX', list, middle)) < order then low = middle + 1 else high = middle end
  end
  return low
end

local function ahead_of(value, queue, level, limits)
  local order, count = order_of(value), 0
  for _, lane in ipairs(lanes_of(queue)) do
    if lane[2] == limits and lane[1] > level then
      count = count + call('LLEN', lane[3]) + call('ZCARD', lane[4])
    elseif lane[2] == limits and lane[1] == level then
      count = count + before(lane[3], order) + call('ZCOUNT', lane[4], '-inf', '(' .. string.format('%.0f', order))
    end
  end
  return count
end

local wanted = {}
for _, leaf in ipairs(leaves) do wanted[#wanted + 1], wanted[#wanted + 2] = leaf[LEAF.run], leaf[LEAF.path] end
load(wanted)
for _, leaf in ipairs(leaves) do
  local name = leaf[LEAF.run] .. leaf[LEAF.path]
  local value, until_ms, ahead = V[name], false, -1
  if value then until_ms = call('ZSCORE', P .. KEY.leases, sub(value, 1, 5) .. name) end
  if value and state_of(value) == STATE.ready then
    ahead = ahead_of(value, leaf[LEAF.queue], leaf[LEAF.level], leaf[LEAF.limits])
  end
  answer[#answer + 1], answer[#answer + 2] = tonumber(until_ms) or -1, ahead
end
return answer
