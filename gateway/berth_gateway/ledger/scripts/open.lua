-- uses: base session view slots turn
local done = before()
if done then return done end
local now = clock()
local releases = {}

-- Copies the source's first `count` turns into the hash at `at`; returns the tokens, nil where one is missing.
local function copy_turns(source, at, count)
  local tokens = 0
  for first = 0, count - 1, 500 do
    local fields = {}
    for i = first, math.min(first + 500, count) - 1 do
      fields[#fields + 1] = 'turn:' .. int(i)
      fields[#fields + 1] = 'head:' .. int(i)
      fields[#fields + 1] = 'input:' .. int(i)
    end
    local values, flat = call('HMGET', key('session', source.name), unpack(fields)), {}
    for i, field in ipairs(fields) do
      if not values[i] then return nil end
      if i % 3 == 1 then tokens = tokens + #values[i] / 4 end
      flat[2 * i - 1], flat[2 * i] = field, values[i]
    end
    if at then call('HSET', at, unpack(flat)) end
  end
  return tokens
end

-- What the resource saw must be there, at its place.
local function behind(session)
  if not args.seen_turns or args.seen_turns == 0 then return false end
  local at = 'head:' .. int(args.seen_turns - 1)
  return args.seen_turns > session.turns or call('HGET', key('session', session.name), at) ~= args.seen_head
end

local function note_lost(session)
  if session.lost == '' and behind(session) then
    store(session, {lost = '1'})
    changed('session', session.name, 'history_lost')
  end
end

-- The resource's wishes about the slot.
local function place(session)
  if args.suspend then
    if session.owner == '' then releases[#releases + 1] = unbind(session, 'suspended') end
  elseif args.bind and session.worker == '' and session.lost == '' then
    local w = berth(session, now)
    if w and w.free > 0 then bind(session, w, nil, session.last_active) end
  end
  schedule(session)
end

-- One that was retained is its resource's again: the uid says so.
local function wishes()
  return {
    origin = args.origin, idle_us = args.idle_us, hibernate_us = args.hibernate_us, max_tokens = args.max_tokens,
    on_worker_failure = args.on_worker_failure, deletion_policy = args.deletion_policy,
    suspended = args.suspend and '1' or '',
  }
end

local stone = tombstone(args.uid)
if stone then
  call('PEXPIRE', key('tombstone', args.uid), CONFIG.tombstone_ms) -- remembered while anybody still wants it back
  return refuse('SessionClosing', 'session ' .. args.name .. ' with this uid was closed',
    {reason = stone.reason, closed = true})
end
local there = load(args.name)
if there and there.closing ~= '' and (there.uid == args.uid or args.origin == 'http') then
  return refuse('SessionClosing', 'session ' .. args.name .. ' is closing', {reason = there.closing})
end
if there and there.uid == args.uid then
  if args.origin == 'cr' then
    note_lost(there)
    store(there, wishes())
    place(there)
  end
  return once({session = view(there, now), created = false, releases = releases})
end
if there and args.exist_ok then return ok({session = view(there, now), created = false, releases = releases}) end
if there and not (args.origin == 'cr' and there.origin == 'cr') then
  return refuse('SessionExists', 'there is a session ' .. args.name, {uid = there.uid, origin = there.origin})
end

local source, turns, fleet = nil, 0, args.fleet
if args.fork then
  local refusal
  source, refusal = find(args.fork)
  if not source then return refusal end
  turns, fleet = args.fork_turns or source.turns, fleet or source.fleet
  if turns > source.turns then
    return refuse('InvalidRequest', 'session ' .. args.fork .. ' has ' .. int(source.turns) .. ' turns',
      {field = 'from.turn'})
  end
  if fleet ~= source.fleet then
    return refuse('InvalidRequest', 'a fork stays in its fleet, ' .. source.fleet, {field = 'fleet'})
  end
  if not intact(source) or not copy_turns(source, nil, turns) then return history_lost(source) end
end
local fingerprint = call('HGET', key('fleet', fleet), 'fingerprint')
if not fingerprint then return refuse('NoSuchFleet', 'no fleet ' .. namespace .. '/' .. fleet) end

if there then
  if there.owner ~= '' then
    store(there, {closing = 'replaced'})
    command(there, 'abort') -- the owner would find out by its next renewal, and its client listens to nobody until then
    releases[#releases + 1] = finish_aborted(there, 'session_replaced', false, now).release
  else
    releases[#releases + 1] = entomb(there, 'replaced', {}).release
  end
end
local session = {name = args.name}
for i, field in ipairs(FIELDS) do session[field] = i <= NUMBERS and 0 or '' end
for field, value in pairs(wishes()) do session[field] = value end
session.uid, session.fleet, session.fingerprint = args.uid, fleet, fingerprint
session.created, session.last_active, session.fields, session.turns = now, now, #FIELDS, turns
if turns > 0 then
  session.tokens = copy_turns(source, key('session', args.name), turns)
  session.head = call('HGET', key('session', source.name), 'head:' .. int(turns - 1))
  session.kin = source.worker
end
local name = session.name
session.name = nil
store({name = name}, session)
session.name = name
call('ZADD', key('sessions'), 0, name)
call('SADD', key('fleet', fleet, 'sessions'), name)
changed('session', name, 'opened')
note_lost(session)
place(session)
return once({session = view(session, now), created = true, releases = releases})
