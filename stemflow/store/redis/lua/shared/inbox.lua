-- The inboxes of runs: what is posted to a run is handed out to one caller at a time, as `Store.exchange` has it.
--   b<run>   by number: the number (5 bytes), the path of a scope behind its length (2), an opaque body
--   B        the runs in whose inbox there is something, by the instant from which it may be handed out
-- `inbox` in m says that there is something in B. Whoever is handed the posts of a run that has ended takes them out.
local INBOX_MS, INBOX_POSTS, INBOX_RUNS = 2000, 256, 4

local inbox = {some = false, fresh = false}

local function post(number, run, path, body)
  call('ZADD', P .. 'b' .. run, number, pack('>I5I2', number, #path) .. path .. body)
  call('ZADD', P .. 'B', 'NX', 0, run)
  if not inbox.some then call('HSET', P .. 'm', 'inbox', 1) end
  inbox.some, inbox.fresh = true, true
end

local function leave_inbox(run)
  call('ZREM', P .. 'B', run)
  if call('EXISTS', P .. 'B') == 0 then
    inbox.some, inbox.fresh = false, false
    call('HDEL', P .. 'm', 'inbox')
  end
end

local function hear(run, upto)
  call('ZREMRANGEBYSCORE', P .. 'b' .. run, '-inf', upto)
  if call('EXISTS', P .. 'b' .. run) == 1 then
    call('ZADD', P .. 'B', 0, run)
  else
    leave_inbox(run)
  end
end

local function drop_inbox(run)
  call('DEL', P .. 'b' .. run)
  leave_inbox(run)
end

local function free_inboxes(only, now)
  if not only then return call('ZRANGEBYSCORE', P .. 'B', '-inf', now, 'LIMIT', 0, INBOX_RUNS) end
  local at = call('ZSCORE', P .. 'B', only)
  return at and tonumber(at) <= now and {only} or {}
end

-- The runs whose inbox is not free.
local function elsewhere(only, now)
  if not inbox.some then return {} end
  local from = '(' .. string.format('%.0f', now)
  if not only then return call('ZRANGEBYSCORE', P .. 'B', from, '+inf', 'LIMIT', 0, INBOX_RUNS) end
  local at = call('ZSCORE', P .. 'B', only)
  return at and tonumber(at) > now and {only} or {}
end

-- Hands out what is free: {run, upto, {path, body, ...}, {path, value, ...}, ...}
local function hand_out(only, now)
  local found = {}
  if not inbox.some then return found end
  for _, run in ipairs(free_inboxes(only, now)) do
    local posts, scopes, upto = {}, {}, 0
    for _, one in ipairs(call('ZRANGE', P .. 'b' .. run, 0, INBOX_POSTS - 1)) do
      local number, length, at = unpacked('>I5I2', one)
      local path = sub(one, at, at + length - 1)
      upto, posts[#posts + 1], posts[#posts + 2] = number, path, sub(one, at + length)
      if not scopes[path] then
        scopes[path], scopes[#scopes + 1] = true, path
      end
    end
    if upto == 0 then
      leave_inbox(run)
    else
      call('ZADD', P .. 'B', now + INBOX_MS, run)
      local wanted, values = {}, {}
      for _, path in ipairs(scopes) do wanted[#wanted + 1], wanted[#wanted + 2] = run, path end
      load(wanted)
      for _, path in ipairs(scopes) do
        if V[run .. path] then values[#values + 1], values[#values + 2] = path, V[run .. path] end
      end
      for _, item in ipairs({run, upto, posts, values}) do found[#found + 1] = item end
    end
  end
  return found
end
