#!lua flags=allow-oom
-- One exchange: commits what ended, leases what is next. The same request again gets the same answer.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  request, MessagePack: {now_ms or 0 for the server's time, channel, sequence, decisions, want or false,
--          id of the partition}
--          want: {owner, limit, queues or false for every queue, only_run or false, handed or false}
-- ARGV[2]  base of the names of channels
-- ARGV[3]  address of who asks, who need not be told of ends that this request makes
--
-- Answers  {'ok', now_ms, committed as a text of 0 and 1, leases, timers, next_at_ms or -1, current, position, inbox,
--           runs whose inbox is elsewhere}
--            leases: {run, path, value, until_ms, header or '', ...}      timers: {run .. path, due_at_ms, ...}
--            inbox: {run, upto, {path of scope, body, ...}, {path, value, ...}, ...}
--            current: the values that the guards of stale decisions named, in their order, '' where there is none
--          {'overtaken', sequence}   a later request of this channel was carried out
--          {'lost'}                  the partition is not there any more, or it is another one
-- All times are milliseconds since the epoch.

--@include records
--@include clock
--@include waiting
--@include windows
--@include shelves
--@include lanes
--@include inbox
--@include commit

local TIMER_PAGE = 256

local request = cmsgpack.unpack(ARGV[1])
local channel, sequence, decisions, want = request[2], request[3], request[4], request[5]
if want then want = {owner = want[1], limit = want[2], queues = want[3], only_run = want[4], handed = want[5]} end

local standing = call('HMGET', P .. 'm', 'epoch', 'now', 'position', 'order', 'inbox')
if standing[1] ~= request[6] then return {'lost'} end
local now, position = clock(request[1], standing[2]), tonumber(standing[3] or 0)
inbox.some = standing[5] and true

local function lease(taken)
  local leases, entries, held, untimed = {}, {}, {}, {}
  for _, one in ipairs(taken) do
    local entry, run, path = one[1], one[2], one[3]
    local old = V[run .. path]
    local flags = byte(old, 7)
    if flag(old, TIMED) and not flag(old, TIMED_LEASED) then
      untimed[#untimed + 1], flags = run .. path, flags - TIMED
    end
    local value = retoken(run, path, old, RUNNING, flags)
    local till, name = now + lease_ms_of(value), sub(entry, 1, 5) .. run .. path
    entries[#entries + 1], entries[#entries + 2] = till, name
    held[#held + 1], held[#held + 2] = name, token_of(value)
    for _, item in ipairs({run, path, value, till, header_beside(run, path, value)}) do leases[#leases + 1] = item end
  end
  each_chunk('ZADD', P .. 'S', entries)
  each_chunk('ZREM', P .. 'T', untimed)
  return leases, held
end

-- Leases the one leaf that has become ready in `queue` to an idle worker that has offered to be handed it.
local function hand(owner, queue)
  if not accepts(owner, now) then return false end
  local taken = take({owner = owner, limit = 1, queues = {queue}}, now)
  if #taken == 0 then return false end
  local given = lease(taken)
  local run, path, value, till, header = unpack(given)
  local sizes = pack('<I8I4I4I4I4', till, #standing[1], #run, #path, #value)
  call('PUBLISH', BASE .. ':k:' .. owner, sizes .. standing[1] .. run .. path .. value .. header)
  call('INCR', P .. 'z' .. owner)
  call('PEXPIRE', P .. 'z' .. owner, HANDED_MS)
  -- Another one may have been first, and somebody must hear of this one.
  return run .. path == effects.latest[queue]
end

local function timers_due()
  local found, offset = {}, 0
  repeat
    local page = call('ZRANGEBYSCORE', P .. 'T', '-inf', now, 'WITHSCORES', 'LIMIT', offset, TIMER_PAGE + 1)
    for i = 1, #page, 2 do
      if not want.only_run or run_in(page[i]) == want.only_run then
        found[#found + 1], found[#found + 2] = page[i], tonumber(page[i + 1])
      end
    end
    offset = offset + #page / 2
  until #page < 2 * (TIMER_PAGE + 1) or #found > 2 * TIMER_PAGE
  return found
end

local function next_after(key)
  local head = call('ZRANGEBYSCORE', key, '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(head[2])
end

-- Timers that are due, and the earliest instant at which anything may become due.
local function due(blocked)
  local timers, soonest = timers_due(), blocked
  local function consider(at)
    if at and (not soonest or at < soonest) then soonest = at end
  end
  if #timers > 2 * TIMER_PAGE then
    timers[#timers], timers[#timers - 1] = nil, nil
    consider(now)
  end
  consider(next_after(P .. 'T'))
  if inbox.some then consider(next_after(P .. 'B')) end
  for _, queue in ipairs(queues_of(want)) do
    consider(next_after(P .. 'd' .. queue))
    if want.limit > 0 and not want.only_run then consider(next_after(P .. 'u' .. queue)) end
  end
  return timers, soonest or -1
end

local function current(committed)
  local found = {}
  for i, decision in ipairs(decisions) do
    if byte(committed, i) == 48 then
      for part = 1, 2 do
        for _, one in ipairs(decision[part] or {}) do found[#found + 1] = V[id_of(one[1], one[2])] or '' end
      end
    end
  end
  return found
end

local function repeated(memo)
  local committed, leases = memo[2], {}
  local wanted = {}
  for i = 1, #memo[3], 2 do wanted[#wanted + 1], wanted[#wanted + 2] = run_in(sub(memo[3][i], 6)) end
  load(wanted)
  if string.find(committed, '0', 1, true) then load(guarded(decisions)) end
  for i = 1, #memo[3], 2 do
    local run, path = wanted[i], wanted[i + 1]
    local value, till = V[run .. path], call('ZSCORE', P .. 'S', memo[3][i])
    if till and value and token_of(value) == memo[3][i + 1] then
      for _, item in ipairs({run, path, value, tonumber(till), header_beside(run, path, value)}) do
        leases[#leases + 1] = item
      end
    end
  end
  local timers, next_at = {}, -1
  if want then timers, next_at = due() end
  return {'ok', now, committed, leases, timers, next_at, current(committed), position, {}, {}}
end

local memo = call('GET', P .. 'q' .. channel)
if memo then
  memo = cmsgpack.unpack(memo)
  if sequence < memo[1] then return {'overtaken', memo[1]} end
  if sequence == memo[1] then return repeated(memo) end
end

call('HSET', P .. 'm', 'now', now)
local committed, changes = {}, false
if #decisions > 0 then
  load(guarded(decisions))
  effects.order = tonumber(standing[4] or 0)
  local before = effects.order
  for i, decision in ipairs(decisions) do
    local fit = fits(decision)
    if fit then apply(decision, now) end
    committed[i] = fit and '1' or '0'
    changes = changes or (fit and decision[8])
  end
  if effects.order > before then call('HSET', P .. 'm', 'order', effects.order) end
end
committed = table.concat(committed)
local sooner = flush_effects()

local leases, held, timers, next_at, blocked, handed, away = {}, {}, {}, -1, nil, {}, {}
if want then
  local taken = {}
  if want.limit > 0 then taken, blocked = take(want, now) end
  leases, held = lease(taken)
  for _, one in ipairs(taken) do effects.added[one[4]] = (effects.added[one[4]] or 0) - 1 end
  if #taken < want.limit then
    idle(want.owner, want.queues, now)
    offer(want.owner, want.handed, now)
  else
    no_longer_idle(want.owner, want.queues)
    offer(want.owner, false, now)
  end
  timers, next_at = due(blocked)
  away = elsewhere(want.only_run, now)
  handed = hand_out(want.only_run, now)
  for _, queue in ipairs(queues_of(want)) do sooner[queue] = nil end
  sooner[''] = nil
end
if #held > 0 or changes then
  position = position + 1
  call('HSET', P .. 'm', 'position', position)
  call('SET', P .. 'q' .. channel, cmsgpack.pack({sequence, committed, held}), 'EX', MEMO_S)
end
for queue, count in pairs(effects.added) do
  wake_for(queue, count, count == 1 and function(owner) return hand(owner, queue) end)
end
for queue in pairs(sooner) do
  if queue == '' then wake(P .. 'I', 1) else wake_for(queue, 1) end
end
for _, run in ipairs(effects.ended) do tell_end(run) end
if changes then tell_followers(effects.changed) end
return {'ok', now, committed, leases, timers, next_at, current(committed), position, handed, away}
