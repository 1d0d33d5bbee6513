-- uses: base session slots turn
local done = before()
if done then return done end
local now = clock()
local reaped = {closed = {}, hibernated = {}, expired = {}, releases = {}}

local function note(list, session, release)
  list[#list + 1] = session.name
  reaped.releases[#reaped.releases + 1] = release
end

local function idle_for(session, limit_us) return limit_us > 0 and session.last_active + limit_us <= now end

local function look(session)
  if session.owner ~= '' then
    if session.lease_until + CONFIG.orphan_us > now then return schedule(session) end
    return note(reaped.expired, session, finish_aborted(session, 'gateway_lost', true, now).release)
  end
  if idle_for(session, session.idle_us) then
    return note(reaped.closed, session, entomb(session, 'idle_timeout', {}).release)
  end
  if session.worker ~= '' and idle_for(session, session.hibernate_us) then
    note(reaped.hibernated, session, unbind(session, 'hibernated'))
  end
  schedule(session)
end

local due = call('ZRANGEBYSCORE', key('due'), '-inf', int(now), 'LIMIT', 0, args.limit)
for _, name in ipairs(due) do
  local session = load(name)
  if session then look(session) else call('ZREM', key('due'), name) end
end
reaped.more = #due == args.limit
if #due == 0 then return ok(reaped) end
return once(reaped)
