-- Every script: KEYS[1] is the namespace's prefix `berth:{ns}:` (one hash tag, one slot), ARGV[1] a msgpack map of
-- named arguments, ARGV[2] raw bytes where there are any. It answers msgpack, or the refusal {type, msgpack}.
local prefix = KEYS[1]
local namespace = string.match(prefix, '{(.*)}')
local args = cmsgpack.unpack(ARGV[1])
local call = redis.call

local function ok(result) return cmsgpack.pack(result) end

-- `kind` is the Python class to raise, `members` its machine-readable facts.
local function refuse(kind, message, members)
  members = members or {}
  members.message = message
  return {kind, cmsgpack.pack(members)}
end

-- Microseconds, whole: below 2^53, so a Lua number holds it exactly.
local function clock()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Concatenation would print large numbers with 14 digits.
local function int(number) return string.format('%.0f', number) end

local function key(...) return prefix .. table.concat({...}, ':') end

-- Entry ids are our own counter, so that a reader can tell a gap from silence.
local function changed(kind, name, what)
  local id = call('INCR', key('changed'))
  call('XADD', key('changes'), 'MAXLEN', '~', CONFIG.changes_kept, int(id) .. '-0', 'kind', kind, 'name', name,
    'what', what)
end

-- Rare operations leave their answer under the id of the call for a minute: a blind replay of it gets the same.
local function before() return call('GET', key('reply', args.call)) end

local function once(result)
  local packed = cmsgpack.pack(result)
  call('SET', key('reply', args.call), packed, 'PX', 60000)
  return packed
end
