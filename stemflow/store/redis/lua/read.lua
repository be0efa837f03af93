#!lua flags=no-writes
-- Reads records.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {run, path, run, path, ...}
-- Answers  the id of the partition, its position, then their values in order, '' where there is none

--@include records

local partition, position = unpack(call('HMGET', P .. KEY.meta, 'epoch', 'position'))
local wanted, found = cmsgpack.unpack(ARGV[1]), {partition or '', tonumber(position or 0)}
load(wanted)
for i = 1, #wanted, 2 do found[#found + 1] = V[id_of(wanted[i], wanted[i + 1])] or '' end
return found
