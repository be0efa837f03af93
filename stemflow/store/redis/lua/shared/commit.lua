-- Decisions. Requests are arrays; `layout.py` names and describes their fields. A put of a claim has an empty run. A
-- claim outlives the instant from which nobody needs it by LIMIT.claim_margin_ms: expiry collects garbage, no more.

local effects = {
  order = 0, unleased = {}, timers = {}, untimed = {}, delayed = {}, added = {}, latest = {}, changed = {}, ended = {},
}

local function rev_stored(run, value)
  if not value then return 0 end
  if run == '' then return (unpacked('<I7', value)) end
  return rev_of(value)
end

local function are_new(runs)
  local names, found = {}, 0
  for i, one in ipairs(runs) do names[i] = P .. one[TWIN.run] end
  in_chunks(names, function(first, last) found = found + call('EXISTS', unpack(names, first, last)) end)
  return found == 0
end

local function rests_on_stale(decision, committed)
  for _, place in ipairs(decision[DECISION.after] or {}) do
    if committed[place] == '0' then return true end
  end
  return false
end

local function fits(decision)
  local dropped = {}
  for _, run in ipairs(decision[DECISION.dropped] or {}) do dropped[run] = true end
  for _, put in ipairs(decision[DECISION.puts] or {}) do
    local run = put[PUT.run]
    local value = not dropped[run] and V[id_of(run, put[PUT.path])]
    if rev_stored(run, value) ~= put[PUT.guard] then return false end
    if value and run ~= '' and token_of(value) ~= put[PUT.token] then return false end
  end
  for _, one in ipairs(decision[DECISION.seen] or {}) do
    local value = V[id_of(one[SEEN.run], one[SEEN.path])]
    if rev_stored(one[SEEN.run], value) ~= one[SEEN.rev] then return false end
    if value and one[SEEN.run] ~= '' and token_of(value) ~= one[SEEN.token] then return false end
  end
  return not decision[DECISION.also] or are_new(decision[DECISION.also])
end

local function guarded(decisions)
  local wanted = {}
  for _, decision in ipairs(decisions) do
    for _, put in ipairs(decision[DECISION.puts] or {}) do
      wanted[#wanted + 1], wanted[#wanted + 2] = put[PUT.run], put[PUT.path]
    end
    for _, one in ipairs(decision[DECISION.seen] or {}) do
      wanted[#wanted + 1], wanted[#wanted + 2] = one[SEEN.run], one[SEEN.path]
    end
    for _, one in ipairs(decision[DECISION.headers] or {}) do
      wanted[#wanted + 1], wanted[#wanted + 2] = one[HEADER.run], ''
    end
  end
  return wanted
end

local function put_claim(put, now)
  local id = KEY.claim .. put[PUT.path]
  if not put[PUT.body] then
    V[id] = false
    call('DEL', P .. id)
    call('ZREM', P .. KEY.claims, put[PUT.path])
    return
  end
  V[id] = put[PUT.head] .. put[PUT.body]
  call('SET', P .. id, V[id])
  local until_ms = put[PUT.holds]
  if until_ms >= 0 then
    call('PEXPIRE', P .. id, math.max(until_ms - now, 0) + LIMIT.claim_margin_ms)
    call('ZREM', P .. KEY.claims, put[PUT.path])
  elseif sub(put[PUT.path], 1, 6) ~= 'topic:' then
    call('ZADD', P .. KEY.claims, 0, put[PUT.path])
  end
end

local function make_ready(ready, order, rev, name, fresh, now)
  local at, queue, lane = ready[READY.at_ms], ready[READY.queue], ready[READY.lane]
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
  local run, path = put[PUT.run], put[PUT.path]
  local name = run .. path
  local old = V[name]
  local order, section = nil, put[PUT.section] or ''
  if old then
    order, section = sub(old, 1, 5), section_of(old)
    local state = state_of(old)
    if (state == STATE.running or state == STATE.stopping) and not put[PUT.holds] then
      effects.unleased[#effects.unleased + 1] = order .. name
    end
  else
    effects.order = effects.order + 1
    order = pack('>I5', effects.order)
  end
  save(run, path, order .. put[PUT.head] .. pack('<I2', #section) .. section .. put[PUT.body], not old)
  if put[PUT.timer] >= 0 then
    effects.timers[name], effects.untimed[name] = put[PUT.timer], nil
  elseif old and flag(old, FLAG.timed) then
    effects.timers[name], effects.untimed[name] = nil, true
  end
  local ready = put[PUT.ready]
  if ready then make_ready(ready, order, sub(put[PUT.head], 3, 6), name, not old, now) end
  effects.changed[run] = true
end

-- The header of a new run: most come with the root that the same decision creates.
local function put_header(run, header)
  local root = V[run]
  if root and section_of(root) ~= '' then return end
  if call('SETNX', P .. KEY.header .. run, header) == 1 then call('LPUSH', P .. KEY.runs, run) end
end

local function put_root(put)
  if put[PUT.header] then call('SET', P .. KEY.header .. put[PUT.run], put[PUT.header]) end
  call('LPUSH', P .. KEY.runs, put[PUT.run])
end

-- More new runs with roots like the one of `put`.
local function put_twins(put, also, now)
  local head, body, timer, ready = put[PUT.head], put[PUT.body], put[PUT.timer], put[PUT.ready]
  local rev = sub(head, 3, 6)
  local names, values = {}, {}
  for i, one in ipairs(also) do
    local run, section = one[TWIN.run], one[TWIN.section]
    effects.order = effects.order + 1
    local order = pack('>I5', effects.order)
    local value = order .. head .. pack('<I2', #section) .. section .. body
    V[run], names[i], values[2 * i - 1], values[2 * i] = value, run, P .. run, value
    if one[TWIN.header] then call('SET', P .. KEY.header .. run, one[TWIN.header]) end
    if timer >= 0 then effects.timers[run] = timer end
    if ready then make_ready(ready, order, rev, run, true, now) end
    effects.changed[run] = true
  end
  in_chunks(values, function(first, last) call('MSET', unpack(values, first, last)) end)
  each_chunk('LPUSH', P .. KEY.runs, names)
end

local function put_pages(run, path, pages)
  for i, page in ipairs(pages) do call('HSET', P .. KEY.pages .. run, pack('>I4', i - 1) .. path, page) end
end

local function bury(letter)
  local run, name, body, until_ms = letter[LETTER.run], letter[LETTER.name], letter[LETTER.body], letter[LETTER.until_ms]
  effects.order = effects.order + 1
  if call('HSETNX', P .. KEY.dead_letters, name, pack('>I5', effects.order) .. body) == 0 then return end
  call('ZADD', P .. KEY.dead_letters_by_end, until_ms, name)
  local last = math.max(until_ms, tonumber(call('GET', P .. KEY.last_letter .. run) or 0))
  call('SET', P .. KEY.last_letter .. run, string.format('%.0f', last), 'EX', LIMIT.plan_s)
end

local function unbury(names)
  each_chunk('HDEL', P .. KEY.dead_letters, names)
  each_chunk('ZREM', P .. KEY.dead_letters_by_end, names)
end

-- All of a run that is over, so that another may have its id.
local function drop(run)
  local letters = {}
  for _, name in ipairs(call('HKEYS', P .. KEY.dead_letters)) do
    if run_in(name) == run then letters[#letters + 1] = name end
  end
  unbury(letters)
  call('DEL', P .. run, P .. KEY.header .. run, P .. KEY.nodes .. run, P .. KEY.pages .. run)
  call('DEL', P .. KEY.last_letter .. run)
  call('LREM', P .. KEY.runs, 0, run)
  call('ZREM', P .. KEY.failed, run)
  call('ZREM', P .. KEY.cancelled, run)
  if inbox.some then drop_inbox(run) end
  for id in pairs(V) do
    if sub(id, 1, #run) == run then V[id] = false end
  end
end

local plan_uses, kept_until = {}, {}

local function use_plan(digest, count) plan_uses[digest] = (plan_uses[digest] or 0) + count end

local function release_plan(digest, until_ms)
  use_plan(digest, -1)
  kept_until[digest] = math.max(kept_until[digest] or 0, until_ms)
end

-- A plan expires with the last run that uses it.
local function flush_plan_uses(now)
  for digest, change in pairs(plan_uses) do
    local key = P .. KEY.plan_uses .. digest
    local before, until_ms = string.match(call('GET', key) or '', '^(%d+) (%d+)$')
    local uses = math.max((tonumber(before) or 0) + change, 0)
    until_ms = math.max(tonumber(until_ms) or 0, kept_until[digest] or 0)
    local ttl_ms = LIMIT.plan_s * 1000
    if uses == 0 then ttl_ms = math.max(until_ms - now, 0) + LIMIT.plan_margin_ms end
    call('SET', key, string.format('%.0f %.0f', uses, until_ms), 'PX', string.format('%.0f', ttl_ms))
    if uses == 0 or change > 0 then call('PEXPIRE', P .. KEY.plan .. digest, string.format('%.0f', ttl_ms)) end
  end
end

local function release_plans(run, digest, until_ms)
  if digest == '' then return end
  release_plan(digest, until_ms)
  local root = V[run]
  if root and not flag(root, FLAG.scope) then return end
  for _, fragment in ipairs(call('SMEMBERS', P .. KEY.fragments .. run)) do release_plan(fragment, until_ms) end
  call('DEL', P .. KEY.fragments .. run)
end

-- Lists a run among those that failed or were cancelled, so that they are found without a look at all others.
local function list_by_end(run)
  local root = V[run]
  local state = root and byte(root, VALUE.state)
  local key = state == STATE.failed and KEY.failed or state == STATE.cancelled and KEY.cancelled
  if key then call('ZADD', P .. key, string.format('%.0f', -unpacked('>I5', root)), run) end
end

-- Answers for how long the run is kept, in milliseconds.
local function expire_run(run, ttl_ms, now)
  local until_ms = call('GET', P .. KEY.last_letter .. run)
  if until_ms then
    ttl_ms = math.max(ttl_ms, until_ms - now)
    call('PEXPIRE', P .. KEY.last_letter .. run, ttl_ms)
  end
  call('PEXPIRE', P .. run, ttl_ms)
  local root = V[run]
  if not root or not header_inside(root) then call('PEXPIRE', P .. KEY.header .. run, ttl_ms) end
  if not root or flag(root, FLAG.scope) then
    call('PEXPIRE', P .. KEY.nodes .. run, ttl_ms)
    call('PEXPIRE', P .. KEY.pages .. run, ttl_ms)
    if inbox.some then call('PEXPIRE', P .. KEY.inbox .. run, ttl_ms) end
  end
  return ttl_ms
end

local function apply(decision, now)
  for _, run in ipairs(decision[DECISION.dropped] or {}) do drop(run) end
  for _, put in ipairs(decision[DECISION.puts] or {}) do
    if put[PUT.run] == '' then
      put_claim(put, now)
    else
      put_node(put, now)
      if put[PUT.section] then put_root(put) end
    end
  end
  local also = decision[DECISION.also]
  if also and #also > 0 then put_twins(decision[DECISION.puts][1], also, now) end
  for _, one in ipairs(decision[DECISION.headers] or {}) do put_header(one[HEADER.run], one[HEADER.header]) end
  for _, one in ipairs(decision[DECISION.plans] or {}) do
    call('SET', P .. KEY.plan .. one[PLAN.digest], one[PLAN.body], 'EX', LIMIT.plan_s)
  end
  for _, one in ipairs(decision[DECISION.uses] or {}) do use_plan(one[USE.plan], one[USE.count]) end
  for _, one in ipairs(decision[DECISION.fragments] or {}) do
    local key = P .. KEY.fragments .. one[FRAGMENT.run]
    if call('SADD', key, one[FRAGMENT.plan]) == 1 then use_plan(one[FRAGMENT.plan], 1) end
    call('PEXPIRE', key, LIMIT.plan_s * 1000)
  end
  for _, one in ipairs(decision[DECISION.pages] or {}) do put_pages(one[PAGE.run], one[PAGE.path], one[PAGE.pages]) end
  for _, one in ipairs(decision[DECISION.consumed] or {}) do consume(one[CONSUMED.run], one[CONSUMED.upto]) end
  for _, one in ipairs(decision[DECISION.posts] or {}) do
    effects.order = effects.order + 1
    post(effects.order, one[POST.run], one[POST.path], one[POST.body])
  end
  unbury(decision[DECISION.purged] or {})
  for _, letter in ipairs(decision[DECISION.dead] or {}) do bury(letter) end
  for _, one in ipairs(decision[DECISION.ended] or {}) do
    list_by_end(one[END.run])
    local kept_ms = expire_run(one[END.run], one[END.keep_ms], now)
    release_plans(one[END.run], one[END.plan], now + kept_ms)
    effects.ended[#effects.ended + 1] = one[END.run]
  end
end

local function head_of(key)
  local head = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return tonumber(head[2])
end

-- Writes what the decisions have added to the indexes; `sooner` names the queues whose workers must be notified.
local function flush_effects(now)
  flush_pushes()
  flush_plan_uses(now)
  local sooner = {}
  if inbox.fresh then sooner[''] = true end
  for _, one in ipairs(effects.delayed) do
    local queue, at = one[DELAYED.queue], one[DELAYED.at_ms]
    local key = P .. KEY.delayed .. queue
    local head = head_of(key)
    if not head or at < head then sooner[queue] = true end
    call('ZADD', key, at, one[DELAYED.member])
    call('SADD', P .. KEY.queues, queue)
  end
  local untimed = {}
  for name in pairs(effects.untimed) do untimed[#untimed + 1] = name end
  each_chunk('ZREM', P .. KEY.timers, untimed)
  local head, timers = false, {}
  for name, at in pairs(effects.timers) do
    if head == false then head = head_of(P .. KEY.timers) end
    if not head or at < head then sooner[''] = true end
    timers[#timers + 1], timers[#timers + 2] = at, name
  end
  each_chunk('ZADD', P .. KEY.timers, timers)
  each_chunk('ZREM', P .. KEY.leases, effects.unleased)
  return sooner
end
