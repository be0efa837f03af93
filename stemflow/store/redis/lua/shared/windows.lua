-- Admission of rate limited leaves, as `stemflow.store.rate_windows` has it. The past of a key: its longest period (6 bytes),
-- how many starts are kept (4), the number of paces (2); of each pace limit (4), period (6) and theoretical arrival time
-- (6, and 4 for the parts of a millisecond); then the instants of the last starts (6 each).

local function windows(now)
  local keys = {}

  local function read(key)
    local value = key and call('GET', P .. KEY.rate_window .. key)
    local self = {longest = 0, keep = 0, starts = {}, tats = {}, paces = {}, left = {}, started = 0}
    if not value then return self end
    local count, at
    self.longest, self.keep, count, at = unpacked('<I6I4I2', value)
    for i = 1, count do
      local limit, per, ms, parts
      limit, per, ms, parts, at = unpacked('<I4I6I6I4', value, at)
      self.tats[limit .. ' ' .. per], self.paces[i] = {ms, parts}, {limit, per}
    end
    for i = at, #value, 6 do self.starts[#self.starts + 1] = unpacked('<I6', value, i) end
    return self
  end

  local function of(key)
    local found = keys[key]
    if not found then
      local readable, past = pcall(read, key)
      found = readable and past or read(nil)
      keys[key] = found
    end
    return found
  end

  -- How far a theoretical arrival time is in the future, in parts of a millisecond.
  local function ahead(tat, limit) return math.max(0, (tat[1] - now) * limit + tat[2]) end

  local function tat_of(key, limit, per) return key.tats[limit .. ' ' .. per] or {0, 0} end

  -- Somebody wants to start under this limit, so that starts are remembered for it.
  local function know(one)
    local key, name = of(one.key), one.limit .. ' ' .. one.per_ms
    key.longest = math.max(key.longest, one.per_ms)
    if not one.burst then
      key.keep = math.max(key.keep, one.limit)
    elseif not key.tats[name] then
      key.tats[name], key.paces[#key.paces + 1] = {0, 0}, {one.limit, one.per_ms}
    end
  end

  local function tat_after(key, limit, per)
    local tat = tat_of(key, limit, per)
    if key.started == 0 then return tat end
    local parts = ahead(tat, limit) + key.started * per
    return {now + math.floor(parts / limit), parts % limit}
  end

  local function recent(starts, one)
    local count = 0
    for i = math.max(1, #starts - one.limit + 1), #starts do
      if starts[i] > now - one.per_ms then count = count + 1 end
    end
    return count
  end

  local function admissible(key, one)
    if one.burst then
      local parts = ahead(tat_of(key, one.limit, one.per_ms), one.limit)
      return one.burst - 1 - math.floor((parts - one.limit) / one.per_ms)
    end
    return one.limit - recent(key.starts, one)
  end

  local function room(one)
    local key, name = of(one.key), one.limit .. ' ' .. one.per_ms .. ' ' .. (one.burst or 0)
    if not key.left[name] then
      key.left[name] = admissible(key, one) - key.started
    end
    return key.left[name]
  end

  local function starts_after(key, most)
    local starts = {}
    for _, start in ipairs(key.starts) do starts[#starts + 1] = start end
    for _ = 1, key.started do starts[#starts + 1] = now end
    local last = {}
    for i = math.max(1, #starts - most + 1), #starts do last[#last + 1] = starts[i] end
    table.sort(last)
    return last
  end

  local function next_at(one)
    local key = of(one.key)
    if one.burst then
      local early = ahead(tat_after(key, one.limit, one.per_ms), one.limit) - (one.burst - 1) * one.per_ms
      return now + math.max(0, math.floor(early / one.limit))
    end
    local kept, start = #key.starts, nil
    if kept > 0 and key.starts[kept] > now then  -- a clock was set back
      local starts = starts_after(key, one.limit)
      start = starts[#starts - one.limit + 1]
    else
      -- Asked for each lane that waits, so nothing is copied: the start that is the limit's number from the end.
      local at = kept + key.started - one.limit + 1
      start = at > kept and now or key.starts[at]
    end
    return start and start > now - one.per_ms and start + one.per_ms or now
  end

  local self = {}

  function self.admit(lane)
    for _, one in ipairs(lane) do know(one) end
    if self.room(lane) <= 0 then return false end
    local taken = {}
    for _, one in ipairs(lane) do taken[one.key] = true end
    for name in pairs(taken) do
      local key = of(name)
      key.started = key.started + 1
      for known in pairs(key.left) do key.left[known] = key.left[known] - 1 end
    end
    return true
  end

  -- How many of a lane may start now.
  function self.room(lane)
    local least = math.huge
    for _, one in ipairs(lane) do least = math.min(least, room(one)) end
    return math.max(0, least)
  end

  -- The name of the limit that keeps a lane longest, and the first instant at which it admits one more.
  function self.obstacle(lane)
    local longest, latest
    for _, one in ipairs(lane) do
      local at = next_at(one)
      if not latest or at > latest then longest, latest = one, at end
    end
    return longest.limit .. ' ' .. longest.per_ms .. ' ' .. (longest.burst or 0) .. ' ' .. longest.key, latest
  end

  function self.save()
    for name, key in pairs(keys) do
      if key.started > 0 then
        local parts = {pack('<I6I4I2', key.longest, key.keep, #key.paces)}
        for _, pace in ipairs(key.paces) do
          local tat = tat_after(key, pace[1], pace[2])
          parts[#parts + 1] = pack('<I4I6I6I4', pace[1], pace[2], tat[1], tat[2])
        end
        for _, start in ipairs(starts_after(key, key.keep)) do parts[#parts + 1] = pack('<I6', start) end
        call('SET', P .. KEY.rate_window .. name, table.concat(parts), 'PX', key.longest + LIMIT.window_margin_ms)
      end
    end
  end

  return self
end
