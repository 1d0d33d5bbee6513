-- Who holds which slot. A worker is a hash; beside it two zsets of session names: `idle` (scored by last use) and
-- `running` (scored by lease, so that a dead gateway's count decays). Together they are the sessions resident there.
local function worker(id)
  local values = call('HMGET', key('worker', id), 'fleet', 'url', 'slots', 'fingerprint', 'cordoned', 'suspect_until')
  if not values[1] then return nil end
  return {id = id, fleet = values[1], url = values[2], slots = tonumber(values[3]), fingerprint = values[4],
    cordoned = values[5] == '1', suspect_until = tonumber(values[6])}
end

local function usable(w, now) return w and not w.cordoned and w.suspect_until <= now end

local function load_of(w, now)
  w.running = call('ZCOUNT', key('worker', w.id, 'running'), '(' .. int(now), '+inf')
  w.resident = call('ZCARD', key('worker', w.id, 'running')) + call('ZCARD', key('worker', w.id, 'idle'))
  w.free = w.slots - w.resident
  return w
end

-- Most free slots, then fewest running turns, then by id so that the choice is reproducible. Nil: none is usable.
local function roomiest(fleet, now, except)
  local best
  local ids = call('SMEMBERS', key('fleet', fleet, 'workers'))
  table.sort(ids)
  for _, id in ipairs(ids) do
    local w = worker(id)
    if id ~= except and usable(w, now) then
      load_of(w, now)
      local better = not best or w.free > best.free or (w.free == best.free and w.running < best.running)
      if better then best = w end
    end
  end
  return best
end

-- Where the session goes that holds no slot: beside what it was forked from, whose KV it shares there, if a slot is free.
local function berth(session, now)
  local w = session.kin ~= '' and worker(session.kin)
  if usable(w, now) and w.fleet == session.fleet and load_of(w, now).free > 0 then return w end
  return roomiest(session.fleet, now)
end

-- When `reap` must look at it next: never before something is due, sometimes in vain.
local function schedule(session)
  local due = math.huge
  if session.owner ~= '' then
    due = session.lease_until + CONFIG.orphan_us
  else
    if session.idle_us > 0 then due = session.last_active + session.idle_us end
    if session.hibernate_us > 0 and session.worker ~= '' then
      due = math.min(due, session.last_active + session.hibernate_us)
    end
  end
  if due == math.huge then call('ZREM', key('due'), session.name)
  else call('ZADD', key('due'), due, session.name) end
end

-- Takes the session's slot away. Returns what to tell the worker, nil where there was none or the worker is gone.
local function unbind(session, why)
  local id = session.worker
  if id == '' then return nil end
  call('ZREM', key('worker', id, 'idle'), session.name)
  call('ZREM', key('worker', id, 'running'), session.name)
  store(session, {worker = '', held = ''})
  if why then changed('session', session.name, why) end
  local w = worker(id)
  return w and {namespace = namespace, name = session.name, uid = session.uid, epoch = session.epoch, worker = id,
    url = w.url}
end

-- Where fewer than `wanted` slots are free, the idle session there that was used least recently gives its own up.
local function make_room(w, wanted)
  load_of(w, 0)
  if w.free >= wanted then return nil end
  local oldest = call('ZRANGE', key('worker', w.id, 'idle'), 0, 0)[1]
  local victim = oldest and load(oldest)
  if not victim then return nil end
  local release = unbind(victim, 'hibernated')
  schedule(victim)
  return release
end

-- What a session lost with this worker. One that was cordoned first was going anyway.
local function loss(id)
  local w = worker(id)
  return {from = id, reason = w and w.cordoned and 'drained' or 'worker_lost'}
end

-- The session's worker goes under it; it remembers that until it comes to another.
local function strand(session)
  store(session, {stranded = cmsgpack.pack(loss(session.worker))})
  changed('session', session.name, 'worker_lost')
end

-- The session comes to `w`. Where it comes from a worker that went under it, that is a recovery; whoever wiped or
-- suspended it in between had taken it off that worker before. `broke`: a turn saw it go, cordoned or not.
local function recover(session, w, broke)
  local lost
  if session.stranded ~= '' then
    lost = cmsgpack.unpack(session.stranded)
    store(session, {stranded = ''})
  elseif session.worker ~= '' and session.worker ~= w.id then
    lost = loss(session.worker)
  end
  if lost and lost.from ~= w.id then
    if broke then lost.reason = 'worker_lost' end
    lost.to, lost.at = w.id, clock() / 1e6
    store(session, {recoveries = session.recoveries + 1, last_recovery = cmsgpack.pack(lost)})
  end
end

-- Gives the session a slot of `w`, running until `lease_until` or idle since `last_active` (the other nil). Returns
-- the release of the session that had to make room.
local function bind(session, w, lease_until, last_active, broke)
  local release
  recover(session, w, broke)
  if session.worker ~= w.id then
    unbind(session)
    release = make_room(w, 1)
    store(session, {worker = w.id})
    changed('session', session.name, 'bound')
  end
  local from, to, score = 'idle', 'running', lease_until
  if not lease_until then from, to, score = 'running', 'idle', last_active end
  call('ZREM', key('worker', w.id, from), session.name)
  call('ZADD', key('worker', w.id, to), score, session.name)
  return release
end
