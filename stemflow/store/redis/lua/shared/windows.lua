-- Admission of rate limited leaves, as `stemflow.store.windows` has it. The past of a key: its longest period and the
-- instants of the last starts, 6 bytes each.
local GARBAGE_MS = 3600000

local function windows(now)
  local past, left, started, keep, longest = {}, {}, {}, {}, {}

  local function past_of(key)
    local found = past[key]
    if not found then
      found = {}
      local value = call('GET', P .. 'w' .. key)
      longest[key] = value and (unpacked('<I6', value)) or 0
      for at = 7, value and #value or 0, 6 do found[#found + 1] = unpacked('<I6', value, at) end
      past[key] = found
    end
    return found
  end

  local function recent(starts, one)
    local count = 0
    for i = math.max(1, #starts - one.limit + 1), #starts do
      if starts[i] > now - one.per_ms then count = count + 1 end
    end
    return count
  end

  local function room(one)
    local name = one.limit .. ' ' .. one.per_ms .. ' ' .. one.key
    local found = left[name]
    if not found then
      local starts = past_of(one.key)
      keep[one.key] = math.max(one.limit, #starts, keep[one.key] or 0)
      longest[one.key] = math.max(longest[one.key], one.per_ms)
      found = {key = one.key, room = one.limit - recent(starts, one) - (started[one.key] or 0)}
      left[name] = found
    end
    return found.room
  end

  local function after(key, most)
    local starts = {}
    for _, start in ipairs(past_of(key)) do starts[#starts + 1] = start end
    for _ = 1, started[key] or 0 do starts[#starts + 1] = now end
    table.sort(starts)
    local last = {}
    for i = math.max(1, #starts - most + 1), #starts do last[#last + 1] = starts[i] end
    return last
  end

  local self = {}

  function self.admit(lane)
    for _, one in ipairs(lane) do
      if room(one) <= 0 then return false end
    end
    local keys = {}
    for _, one in ipairs(lane) do keys[one.key] = true end
    for _, known in pairs(left) do
      if keys[known.key] then known.room = known.room - 1 end
    end
    for key in pairs(keys) do started[key] = (started[key] or 0) + 1 end
    return true
  end

  function self.next_at(lane)
    local latest = now
    for _, one in ipairs(lane) do
      local starts = after(one.key, one.limit)
      local count = recent(starts, one)
      if count >= one.limit then latest = math.max(latest, starts[#starts - one.limit + 1] + one.per_ms) end
    end
    return latest
  end

  function self.save()
    for key in pairs(started) do
      local parts = {pack('<I6', longest[key])}
      for _, start in ipairs(after(key, keep[key])) do parts[#parts + 1] = pack('<I6', start) end
      call('SET', P .. 'w' .. key, table.concat(parts), 'PX', longest[key] + GARBAGE_MS)
    end
  end

  return self
end
