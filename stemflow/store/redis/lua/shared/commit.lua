-- Decisions: {puts, seen, headers, plans, pages, dead, ended, changes, purged, dropped, also, posts, heard}; an empty
-- part is false, the last five are left out where all are empty. A dead letter: {run, run .. path, body, until_ms}. `also` names more
-- new runs whose roots are like that of the first put: {run, section, header}. A post: {run, path of the scope, body};
-- heard: {run, number up to which}.
-- A put of a node: {run, path, guard, token, head, body, holds, timer, ready, section, header}
--   head     state .. lease_ms, as records.lua has it        holds    whether a lease outlives the commit
--   timer    instant of its timer, or -1                     ready    {at_ms, queue, lane}, or false
--   section, header    with the root of a new run only: what is kept in its value, and what is too big for that
-- A put of a claim: {'', key, guard, 0, head, body or false, until_ms or -1}; its head is the rev in 7 bytes. It is
-- missed by nobody from until_ms on.
local MEMO_S, PLAN_S = 86400, 366 * 86400
-- How long a claim outlives its window: expiry is for garbage and decides nothing.
local CLAIM_MARGIN_MS = 3600000

local effects = {order = 0, unleased = {}, timers = {}, untimed = {}, delayed = {}, added = {}, latest = {}, changed = {}, ended = {}}

local function rev_stored(run, value)
  if not value then return 0 end
  if run == '' then return (unpacked('<I7', value)) end
  return rev_of(value)
end

local function are_new(runs)
  local names, found = {}, 0
  for i, one in ipairs(runs) do names[i] = P .. one[1] end
  in_chunks(names, function(first, last) found = found + call('EXISTS', unpack(names, first, last)) end)
  return found == 0
end

local function fits(decision)
  local dropped = {}
  for _, run in ipairs(decision[10] or {}) do dropped[run] = true end
  for _, put in ipairs(decision[1] or {}) do
    local value = not dropped[put[1]] and V[id_of(put[1], put[2])]
    if rev_stored(put[1], value) ~= put[3] then return false end
    if value and put[1] ~= '' and token_of(value) ~= put[4] then return false end
  end
  for _, one in ipairs(decision[2] or {}) do
    if rev_stored(one[1], V[id_of(one[1], one[2])]) ~= one[3] then return false end
  end
  return not decision[11] or are_new(decision[11])
end

local function guarded(decisions)
  local wanted = {}
  for _, decision in ipairs(decisions) do
    for part = 1, 2 do
      for _, one in ipairs(decision[part] or {}) do wanted[#wanted + 1], wanted[#wanted + 2] = one[1], one[2] end
    end
    for _, one in ipairs(decision[3] or {}) do wanted[#wanted + 1], wanted[#wanted + 2] = one[1], '' end
  end
  return wanted
end

local function put_claim(put, now)
  local id = 'c' .. put[2]
  if not put[6] then
    V[id] = false
    call('DEL', P .. id)
    return
  end
  V[id] = put[5] .. put[6]
  call('SET', P .. id, V[id])
  if put[7] >= 0 then call('PEXPIRE', P .. id, math.max(put[7] - now, 0) + CLAIM_MARGIN_MS) end
end

local function make_ready(ready, order, rev, name, fresh, now)
  local at, queue, lane = ready[1], ready[2], ready[3]
  local entry = order .. rev .. name
  if at > now then
    effects.delayed[#effects.delayed + 1] = {queue, at, pack('>I2', #lane) .. lane .. entry}
  else
    push(queue, lane, entry, (unpacked('>I5', order)), fresh)
    effects.added[queue] = (effects.added[queue] or 0) + 1
    effects.latest[queue] = name
  end
end

local function put_node(put, now)
  local run, path = put[1], put[2]
  local name = run .. path
  local old = V[name]
  local order, section = nil, put[10] or ''
  if old then
    order, section = sub(old, 1, 5), section_of(old)
    local state = state_of(old)
    if (state == RUNNING or state == STOPPING) and not put[7] then
      effects.unleased[#effects.unleased + 1] = order .. name
    end
  else
    effects.order = effects.order + 1
    order = pack('>I5', effects.order)
  end
  save(run, path, order .. put[5] .. pack('<I2', #section) .. section .. put[6], not old)
  if put[8] >= 0 then
    effects.timers[name], effects.untimed[name] = put[8], nil
  elseif old and flag(old, TIMED) then
    effects.timers[name], effects.untimed[name] = nil, true
  end
  if put[9] then make_ready(put[9], order, sub(put[5], 3, 6), name, not old, now) end
  effects.changed[run] = true
end

-- The header of a new run: most come with the root that the same decision creates.
local function put_header(run, header)
  local root = V[run]
  if root and section_of(root) ~= '' then return end
  if call('SETNX', P .. 'h' .. run, header) == 1 then call('LPUSH', P .. 'L', run) end
end

local function put_root(put)
  if put[11] then call('SET', P .. 'h' .. put[1], put[11]) end
  call('LPUSH', P .. 'L', put[1])
end

-- More new runs with roots like the one of `put`.
local function put_twins(put, also, now)
  local head, body, timer, ready, rev = put[5], put[6], put[8], put[9], sub(put[5], 3, 6)
  local names, values = {}, {}
  for i, one in ipairs(also) do
    local run, section = one[1], one[2]
    effects.order = effects.order + 1
    local order = pack('>I5', effects.order)
    local value = order .. head .. pack('<I2', #section) .. section .. body
    V[run], names[i], values[2 * i - 1], values[2 * i] = value, run, P .. run, value
    if one[3] then call('SET', P .. 'h' .. run, one[3]) end
    if timer >= 0 then effects.timers[run] = timer end
    if ready then make_ready(ready, order, rev, run, true, now) end
    effects.changed[run] = true
  end
  in_chunks(values, function(first, last) call('MSET', unpack(values, first, last)) end)
  each_chunk('LPUSH', P .. 'L', names)
end

local function put_pages(run, path, pages)
  for i, page in ipairs(pages) do call('HSET', P .. 'g' .. run, pack('>I4', i - 1) .. path, page) end
end

local function bury(letter)
  local run, name, body, till = letter[1], letter[2], letter[3], letter[4]
  effects.order = effects.order + 1
  if call('HSETNX', P .. 'D', name, pack('>I5', effects.order) .. body) == 0 then return end
  call('ZADD', P .. 'U', till, name)
  local last = math.max(till, tonumber(call('GET', P .. 'a' .. run) or 0))
  call('SET', P .. 'a' .. run, string.format('%.0f', last), 'EX', PLAN_S)
end

local function unbury(names)
  each_chunk('HDEL', P .. 'D', names)
  each_chunk('ZREM', P .. 'U', names)
end

-- All of a run that is over, so that another may have its id.
local function drop(run)
  local letters = {}
  for _, name in ipairs(call('HKEYS', P .. 'D')) do
    if run_in(name) == run then letters[#letters + 1] = name end
  end
  unbury(letters)
  call('DEL', P .. run, P .. 'h' .. run, P .. 'n' .. run, P .. 'g' .. run, P .. 'a' .. run)
  call('LREM', P .. 'L', 0, run)
  if inbox.some then drop_inbox(run) end
  for id in pairs(V) do
    if sub(id, 1, #run) == run then V[id] = false end
  end
end

local function expire_run(run, ttl_ms, now)
  local till = call('GET', P .. 'a' .. run)
  if till then
    ttl_ms = math.max(ttl_ms, till - now)
    call('PEXPIRE', P .. 'a' .. run, ttl_ms)
  end
  call('PEXPIRE', P .. run, ttl_ms)
  local root = V[run]
  if not root or not header_inside(root) then call('PEXPIRE', P .. 'h' .. run, ttl_ms) end
  if not root or flag(root, SCOPE) then
    call('PEXPIRE', P .. 'n' .. run, ttl_ms)
    call('PEXPIRE', P .. 'g' .. run, ttl_ms)
    if inbox.some then call('PEXPIRE', P .. 'b' .. run, ttl_ms) end
  end
end

local function apply(decision, now)
  for _, run in ipairs(decision[10] or {}) do drop(run) end
  for _, put in ipairs(decision[1] or {}) do
    if put[1] == '' then
      put_claim(put, now)
    else
      put_node(put, now)
      if put[10] then put_root(put) end
    end
  end
  if decision[11] and #decision[11] > 0 then put_twins(decision[1][1], decision[11], now) end
  for _, one in ipairs(decision[3] or {}) do put_header(one[1], one[2]) end
  for _, one in ipairs(decision[4] or {}) do call('SET', P .. 'p' .. one[1], one[2], 'EX', PLAN_S) end
  for _, one in ipairs(decision[5] or {}) do put_pages(one[1], one[2], one[3]) end
  for _, one in ipairs(decision[13] or {}) do hear(one[1], one[2]) end
  for _, one in ipairs(decision[12] or {}) do
    effects.order = effects.order + 1
    post(effects.order, one[1], one[2], one[3])
  end
  unbury(decision[9] or {})
  for _, letter in ipairs(decision[6] or {}) do bury(letter) end
  for _, one in ipairs(decision[7] or {}) do
    expire_run(one[1], one[2], now)
    effects.ended[#effects.ended + 1] = one[1]
  end
end

local function head_of(key)
  local head = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return tonumber(head[2])
end

-- Writes what the decisions have added to the indexes; `sooner` says of which queues somebody must hear.
local function flush_effects()
  flush_pushes()
  local sooner = {}
  if inbox.fresh then sooner[''] = true end
  for _, one in ipairs(effects.delayed) do
    local key = P .. 'd' .. one[1]
    local head = head_of(key)
    if not head or one[2] < head then sooner[one[1]] = true end
    call('ZADD', key, one[2], one[3])
    call('SADD', P .. 'K', one[1])
  end
  local untimed = {}
  for name in pairs(effects.untimed) do untimed[#untimed + 1] = name end
  each_chunk('ZREM', P .. 'T', untimed)
  local head, timers = false, {}
  for name, at in pairs(effects.timers) do
    if head == false then head = head_of(P .. 'T') end
    if not head or at < head then sooner[''] = true end
    timers[#timers + 1], timers[#timers + 2] = at, name
  end
  each_chunk('ZADD', P .. 'T', timers)
  each_chunk('ZREM', P .. 'S', effects.unleased)
  return sooner
end
