#!lua flags=no-writes
-- Reads records.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {run, path, run, path, ...}
-- Answers  the id of the partition, its position, the number of its last boot, then the values of the records in
--          order, '' where there is none

--@include records

local partition, position, boot = unpack(call('HMGET', P .. KEY.meta, 'epoch', 'position', 'boots'))
local wanted, found =
  cmsgpack.unpack(ARGV[1]), {partition or '', tonumber(position or 0), tonumber(boot or 0)}
load(wanted)
for i = 1, #wanted, 2 do found[#found + 1] = V[id_of(wanted[i], wanted[i + 1])] or '' end
return found
