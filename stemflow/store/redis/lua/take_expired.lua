#!lua flags=allow-oom
-- Takes over expired leases: in one step each gets a new token and a short lease.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  request, MessagePack: {now_ms or 0, limit, lease_ms, run or ''}
-- Answers  {now_ms, {run, path, value, until_ms, header or '', ...}}

--@include records
--@include clock

local request = cmsgpack.unpack(ARGV[1])
local now = clock(request[EXPIRY.now_ms])
local only, most = request[EXPIRY.run], request[EXPIRY.limit]
local names, wanted, leases = {}, {}, {}
for _, name in ipairs(call('ZRANGEBYSCORE', P .. KEY.leases, '-inf', now, 'LIMIT', 0, only == '' and most or -1)) do
  local run, path = run_in(sub(name, 6))
  if #names < most and (only == '' or run == only) then
    names[#names + 1], wanted[#wanted + 1], wanted[#wanted + 2] = name, run, path
  end
end
load(wanted)
for i, name in ipairs(names) do
  local run, path = wanted[2 * i - 1], wanted[2 * i]
  local old = V[run .. path]
  if old then
    local value = retoken(run, path, old)
    local until_ms = now + request[EXPIRY.lease_ms]
    call('ZADD', P .. KEY.leases, until_ms, name)
    for _, item in ipairs({run, path, value, until_ms, separate_header(run, path, value)}) do leases[#leases + 1] = item end
  else
    call('ZREM', P .. KEY.leases, name)
  end
end
return {now, leases}
