-- The inboxes of runs: what is posted to a run is leased to one caller at a time, as `Store.exchange` has it. A post: its
-- number (5 bytes), the path of a scope behind its length (2), a body that is not read here. The field `inbox` of
-- KEY.meta says that there are posts at all. A worker that leases the posts of a run that has ended consumes them.

local inbox = {some = false, fresh = false}

local function post(number, run, path, body)
  call('ZADD', P .. KEY.inbox .. run, number, pack('>I5I2', number, #path) .. path .. body)
  call('ZADD', P .. KEY.inboxes, 'NX', 0, run)
  if not inbox.some then call('HSET', P .. KEY.meta, 'inbox', 1) end
  inbox.some, inbox.fresh = true, true
end

local function leave_inbox(run)
  call('ZREM', P .. KEY.inboxes, run)
  if call('EXISTS', P .. KEY.inboxes) == 0 then
    inbox.some, inbox.fresh = false, false
    call('HDEL', P .. KEY.meta, 'inbox')
  end
end

local function consume(run, upto)
  call('ZREMRANGEBYSCORE', P .. KEY.inbox .. run, '-inf', upto)
  if call('EXISTS', P .. KEY.inbox .. run) == 1 then
    call('ZADD', P .. KEY.inboxes, 0, run)
  else
    leave_inbox(run)
  end
end

local function drop_inbox(run)
  call('DEL', P .. KEY.inbox .. run)
  leave_inbox(run)
end

local function free_inboxes(only, now)
  if not only then return call('ZRANGEBYSCORE', P .. KEY.inboxes, '-inf', now, 'LIMIT', 0, LIMIT.inbox_runs) end
  local at = call('ZSCORE', P .. KEY.inboxes, only)
  return at and tonumber(at) <= now and {only} or {}
end

-- Runs whose inbox another caller has.
local function busy_inboxes(only, now)
  if not inbox.some then return {} end
  local from = '(' .. string.format('%.0f', now)
  if not only then return call('ZRANGEBYSCORE', P .. KEY.inboxes, from, '+inf', 'LIMIT', 0, LIMIT.inbox_runs) end
  local at = call('ZSCORE', P .. KEY.inboxes, only)
  return at and tonumber(at) > now and {only} or {}
end

-- Leases the inboxes that are free: {run, upto, {path, body, ...}, {path, value, ...}, ...}
local function lease_inboxes(only, now)
  local found = {}
  if not inbox.some then return found end
  for _, run in ipairs(free_inboxes(only, now)) do
    local posts, scopes, upto = {}, {}, 0
    for _, one in ipairs(call('ZRANGE', P .. KEY.inbox .. run, 0, LIMIT.inbox_posts - 1)) do
      local path, body, number = '', '', nil
      if #one >= 7 then
        local length, at
        number, length, at = unpacked('>I5I2', one)
        path, body = sub(one, at, at + length - 1), sub(one, at + length)
      else
        number = tonumber(call('ZSCORE', P .. KEY.inbox .. run, one))
      end
      upto, posts[#posts + 1], posts[#posts + 2] = number, path, body
      if not scopes[path] then
        scopes[path], scopes[#scopes + 1] = true, path
      end
    end
    if upto == 0 then
      leave_inbox(run)
    else
      call('ZADD', P .. KEY.inboxes, now + LIMIT.inbox_ms, run)
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
