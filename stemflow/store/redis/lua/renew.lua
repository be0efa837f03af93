#!lua flags=allow-oom
-- Extends leases that still hold.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  request, MessagePack: {now_ms or 0, {{run, path, token, lease_ms}, ...}}
-- Answers  a text, one letter a lease: g (gone), h (holds), s (holds; must stop), k (holds; must stop at once)

--@include records
--@include clock

local request = cmsgpack.unpack(ARGV[1])
local now = clock(request[RENEWALS.now_ms])
local wanted, answers = {}, {}
for _, one in ipairs(request[RENEWALS.leases]) do
  wanted[#wanted + 1], wanted[#wanted + 2] = one[RENEWAL.run], one[RENEWAL.path]
end
load(wanted)
for i, one in ipairs(request[RENEWALS.leases]) do
  local run, path = one[RENEWAL.run], one[RENEWAL.path]
  local value = V[run .. path]
  answers[i] = 'g'
  if value and token_of(value) == one[RENEWAL.token] then
    local name = sub(value, 1, 5) .. run .. path
    if call('ZSCORE', P .. KEY.leases, name) then
      call('ZADD', P .. KEY.leases, now + one[RENEWAL.lease_ms], name)
      answers[i] = state_of(value) ~= STATE.stopping and 'h' or (flag(value, FLAG.kill) and 'k' or 's')
    end
  end
end
return table.concat(answers)
