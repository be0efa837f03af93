#!lua flags=allow-oom
-- Extends leases that still hold.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  request, MessagePack: {now_ms or 0, {{run, path, token, lease_ms}, ...}}
-- Answers  a text, one letter a lease: g (gone), h (holds), s (holds; told to stop), k (holds; told to stop at once)

--@include records
--@include clock

local request = cmsgpack.unpack(ARGV[1])
local now = clock(request[1])
local wanted, answers = {}, {}
for _, one in ipairs(request[2]) do wanted[#wanted + 1], wanted[#wanted + 2] = one[1], one[2] end
load(wanted)
for i, one in ipairs(request[2]) do
  local value = V[one[1] .. one[2]]
  answers[i] = 'g'
  if value and token_of(value) == one[3] then
    local name = sub(value, 1, 5) .. one[1] .. one[2]
    if call('ZSCORE', P .. 'S', name) then
      call('ZADD', P .. 'S', now + one[4], name)
      answers[i] = state_of(value) ~= STOPPING and 'h' or (flag(value, KILL) and 'k' or 's')
    end
  end
end
return table.concat(answers)
