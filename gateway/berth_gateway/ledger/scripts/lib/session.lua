-- A session is one hash: these fields, and for each turn `turn:<i>` (packed ids), `input:<i>` (how many of them are input)
-- and `head:<i>` (the head after it). All fields
-- exist from `open` on and none is ever deleted: `fields` says how many there were, so that HLEN tells a lost turn.
-- `held` is the head that the worker's slot should hold; '' where it was wiped or is another's. `stranded` and
-- `last_recovery` are msgpack: which worker was lost under it (until it comes to another), and how that went the last time.
local FIELDS = {
  -- numbers
  'epoch', 'attempt', 'lease_until', 'input_tokens', 'moves', 'tokens', 'turns', 'created', 'last_active', 'idle_us',
  'hibernate_us', 'max_tokens', 'fields', 'recoveries',
  -- texts
  'uid', 'origin', 'fleet', 'fingerprint', 'closing', 'suspended', 'lost', 'owner', 'holder', 'digest', 'order', 'head',
  'held', 'worker', 'kin', 'on_worker_failure', 'deletion_policy', 'call', 'answer', 'stranded', 'last_recovery',
}
local NUMBERS = 14

local function load(name)
  local values = call('HMGET', key('session', name), unpack(FIELDS))
  local session = {name = name}
  for i = 1, NUMBERS do session[FIELDS[i]] = tonumber(values[i]) or 0 end
  for i = NUMBERS + 1, #FIELDS do session[FIELDS[i]] = values[i] or '' end
  if session.uid == '' then return nil end
  return session
end

-- Writes the changes through to the hash and into `session`.
local function store(session, changes)
  local flat = {}
  for field, value in pairs(changes) do
    session[field] = value
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  call('HSET', key('session', session.name), unpack(flat))
end

local function no_session(name) return refuse('NoSuchSession', 'no session ' .. namespace .. '/' .. name) end

-- The named session, with another uid counting as absent; else nil and the refusal.
local function find(name, uid)
  local session = load(name)
  if session and (not uid or uid == session.uid) then return session end
  return nil, no_session(name)
end

local function leased(session, now) return session.owner ~= '' and session.lease_until > now end

-- Whether all it once acknowledged is there. Nothing is read: the counts and the two ends must fit.
local function intact(session)
  if session.lost ~= '' then return false end
  local at = key('session', session.name)
  if call('HLEN', at) < session.fields + 3 * session.turns then return false end
  if session.turns == 0 then return session.head == '' end
  local last = int(session.turns - 1)
  return call('HGET', at, 'head:' .. last) == session.head and call('HEXISTS', at, 'turn:' .. last) == 1
end

local function history_lost(session)
  return refuse('HistoryLost', 'the ledger no longer has all turns of ' .. namespace .. '/' .. session.name,
    {turns = session.turns, head = session.head})
end

local function text(value) if value ~= '' then return value end end

local function positive(value) if value > 0 then return value end end
