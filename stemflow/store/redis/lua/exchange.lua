#!lua flags=allow-oom
-- One exchange: commits what ended, leases what is next. The same request again gets the same answer.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  request, MessagePack: `Sent` in layout.py
-- ARGV[2]  base of the names of channels
-- ARGV[3]  address of the caller, which needs no notification of ends that this request makes
--
-- Answers  `Answer` in layout.py; or
--          {'overtaken', sequence}   a later request of this channel was carried out
--          {'tasks'}                 the tasks of the worker are not known; nothing was done
--          {'lost'}                  the partition is not there any more, or it is another one
-- All times are milliseconds since the epoch.

--@include records
--@include clock
--@include waiting
--@include windows
--@include lane_index
--@include lanes
--@include inbox
--@include commit

local request = cmsgpack.unpack(ARGV[1])
local channel, sequence = request[REQUEST.channel], request[REQUEST.sequence]
local decisions, want = request[REQUEST.decisions], request[REQUEST.want]
if want then
  want = {
    owner = want[WANT.owner], limit = want[WANT.limit], queues = want[WANT.queues], only_run = want[WANT.only_run],
    pushes = want[WANT.pushes], tasks = want[WANT.tasks], without = want[WANT.without], oldest = want[WANT.oldest],
  }
end

local partition, last_now, position, last_order, has_posts, boot =
  unpack(call('HMGET', P .. KEY.meta, 'epoch', 'now', 'position', 'order', 'inbox', 'boots'))
if partition ~= request[REQUEST.partition] then return {'lost'} end
if want and want.tasks and call('EXISTS', P .. KEY.tasks .. want.tasks) == 0 then return {'tasks'} end
local now = clock(request[REQUEST.now_ms], last_now)
position, boot = tonumber(position or 0), tonumber(boot or 0)
inbox.some = has_posts and true

local function lease(taken)
  local leases, entries, held, untimed = {}, {}, {}, {}
  for _, one in ipairs(taken) do
    local entry, run, path = one[ENTRY.entry], one[ENTRY.run], one[ENTRY.path]
    local old = V[run .. path]
    local flags = byte(old, 7)
    if flag(old, FLAG.timed) and not flag(old, FLAG.timed_leased) then
      untimed[#untimed + 1], flags = run .. path, flags - FLAG.timed
    end
    local value = retoken(run, path, old, STATE.running, flags)
    local until_ms, name = now + lease_ms_of(value), sub(entry, 1, 5) .. run .. path
    entries[#entries + 1], entries[#entries + 2] = until_ms, name
    held[#held + 1], held[#held + 2] = name, token_of(value)
    for _, item in ipairs({run, path, value, until_ms, separate_header(run, path, value)}) do leases[#leases + 1] = item end
  end
  each_chunk('ZADD', P .. KEY.leases, entries)
  each_chunk('ZREM', P .. KEY.timers, untimed)
  return leases, held
end

-- Leases the one leaf that has become ready in `queue` to an idle worker, and sends it the lease.
local function push_lease(owner, queue)
  if not accepts(owner, now) then return false end
  local taken = take({owner = owner, limit = 1, found = {queue}}, now)
  if #taken == 0 then return false end
  local given = lease(taken)
  local run, path, value, until_ms, header = unpack(given)
  local sizes = pack('<I8I4I4I4I4', until_ms, #partition, #run, #path, #value)
  call('PUBLISH', BASE .. CHANNEL.work .. owner, sizes .. partition .. run .. path .. value .. header)
  call('INCR', P .. KEY.push_count .. owner)
  call('PEXPIRE', P .. KEY.push_count .. owner, LIMIT.pushed_ms)
  -- Another leaf may have been leased first; then this one needs a notification.
  return run .. path == effects.latest[queue]
end

-- Timers that are due. One whose record is gone, or has no timer, would be due in every exchange: it is dropped.
local function timers_due()
  local found, offset, orphans = {}, 0, {}
  repeat
    local most = LIMIT.timer_page + 1
    local page = call('ZRANGEBYSCORE', P .. KEY.timers, '-inf', now, 'WITHSCORES', 'LIMIT', offset, most)
    local wanted = {}
    for i = 1, #page, 2 do wanted[i], wanted[i + 1] = run_in(page[i]) end
    load(wanted)
    for i = 1, #page, 2 do
      local value = V[wanted[i] .. wanted[i + 1]]
      if not value or not flag(value, FLAG.timed) then
        orphans[#orphans + 1] = page[i]
      elseif not want.only_run or wanted[i] == want.only_run then
        found[#found + 1], found[#found + 2] = page[i], tonumber(page[i + 1])
      end
    end
    offset = offset + #page / 2
  until #page < 2 * (LIMIT.timer_page + 1) or #found > 2 * LIMIT.timer_page
  each_chunk('ZREM', P .. KEY.timers, orphans)
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
  if #timers > 2 * LIMIT.timer_page then
    timers[#timers], timers[#timers - 1] = nil, nil
    consider(now)
  end
  consider(next_after(P .. KEY.timers))
  if inbox.some then consider(next_after(P .. KEY.inboxes)) end
  for _, queue in ipairs(queues_of(want)) do
    consider(next_after(P .. KEY.delayed .. queue))
    if want.limit > 0 and not want.only_run then consider(next_after(P .. KEY.blocked_limits .. queue)) end
  end
  return timers, soonest or -1
end

local function current(committed)
  local found = {}
  for i, decision in ipairs(decisions) do
    if byte(committed, i) == 48 then
      for _, put in ipairs(decision[DECISION.puts] or {}) do
        found[#found + 1] = V[id_of(put[PUT.run], put[PUT.path])] or ''
      end
      for _, one in ipairs(decision[DECISION.seen] or {}) do
        found[#found + 1] = V[id_of(one[SEEN.run], one[SEEN.path])] or ''
      end
    end
  end
  return found
end

local function repeated(memo)
  local committed, held, leases = memo[MEMO.committed], memo[MEMO.held], {}
  local wanted = {}
  for i = 1, #held, 2 do wanted[#wanted + 1], wanted[#wanted + 2] = run_in(sub(held[i], 6)) end
  load(wanted)
  if string.find(committed, '0', 1, true) then load(guarded(decisions)) end
  for i = 1, #held, 2 do
    local run, path = wanted[i], wanted[i + 1]
    local value, until_ms = V[run .. path], call('ZSCORE', P .. KEY.leases, held[i])
    if until_ms and value and token_of(value) == held[i + 1] then
      for _, item in ipairs({run, path, value, tonumber(until_ms), separate_header(run, path, value)}) do
        leases[#leases + 1] = item
      end
    end
  end
  local timers, next_at = {}, -1
  if want then timers, next_at = due() end
  return {'ok', now, committed, leases, timers, next_at, current(committed), position, boot, {}, {}}
end

local memo = call('GET', P .. KEY.memo .. channel)
local readable
if memo then readable, memo = pcall(cmsgpack.unpack, memo) end
if readable and type(memo) == 'table' then
  if sequence < memo[MEMO.sequence] then return {'overtaken', memo[MEMO.sequence]} end
  if sequence == memo[MEMO.sequence] then return repeated(memo) end
end

-- The first write: a server of version 6.2 that is short of memory refuses a submission here, and only here.
call('HSET', P .. KEY.meta, 'now', now)
if want and want.tasks then call('PEXPIRE', P .. KEY.tasks .. want.tasks, LIMIT.tasks_ms) end
local committed, changes = {}, false
if #decisions > 0 then
  load(guarded(decisions))
  effects.order = tonumber(last_order or 0)
  local before = effects.order
  for i, decision in ipairs(decisions) do
    local fit = not rests_on_stale(decision, committed) and fits(decision)
    if fit then apply(decision, now) end
    committed[i] = fit and '1' or '0'
    changes = changes or (fit and decision[DECISION.changes])
  end
  if effects.order > before then call('HSET', P .. KEY.meta, 'order', effects.order) end
end
committed = table.concat(committed)
local sooner = flush_effects(now)

local leases, held, timers, next_at, blocked, inboxes, busy = {}, {}, {}, -1, nil, {}, {}
if want then
  local taken = {}
  if want.limit > 0 then taken, blocked = take(want, now) end
  leases, held = lease(taken)
  for _, one in ipairs(taken) do
    local queue = one[ENTRY.queue]
    effects.added[queue] = (effects.added[queue] or 0) - 1
  end
  if #taken < want.limit then
    idle(want, now)
    offer(want.owner, want.pushes, now)
  else
    no_longer_idle(want)
    offer(want.owner, false, now)
  end
  timers, next_at = due(blocked)
  busy = busy_inboxes(want.only_run, now)
  inboxes = lease_inboxes(want.only_run, now)
  for _, queue in ipairs(queues_of(want)) do sooner[queue] = nil end
  sooner[''] = nil
end
if #held > 0 or changes then
  position = position + 1
  call('HSET', P .. KEY.meta, 'position', position)
  call('SET', P .. KEY.memo .. channel, cmsgpack.pack({sequence, committed, held}), 'EX', LIMIT.memo_s)
end
for queue, count in pairs(effects.added) do
  -- A worker that is pushed a lease sends no request, so it would not learn of a timer that comes sooner.
  wake_for(queue, count, count == 1 and not next(sooner) and function(owner) return push_lease(owner, queue) end)
end
for queue in pairs(sooner) do
  if queue == '' then wake(P .. KEY.idle, 1) else wake_for(queue, 1) end
end
for _, run in ipairs(effects.ended) do notify_end(run) end
if changes then notify_followers(effects.changed) end
return {'ok', now, committed, leases, timers, next_at, current(committed), position, boot, inboxes, busy}
