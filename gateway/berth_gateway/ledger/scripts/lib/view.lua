-- A session as people see it.
local function seconds(us) if us > 0 then return us / 1e6 end end

local function view(session, now)
  local state = session.worker ~= '' and 'resident' or 'hibernated'
  if leased(session, now) then state = 'running' end
  if session.closing ~= '' then state = 'closing' end
  return {
    namespace = namespace, name = session.name, uid = session.uid, origin = session.origin, fleet = session.fleet,
    fingerprint = session.fingerprint, state = state, head = session.head, turns = session.turns,
    tokens = session.tokens, epoch = session.epoch, worker = text(session.worker),
    turn = leased(session, now) and session.owner or nil, created = session.created / 1e6,
    last_active = session.last_active / 1e6, closing = text(session.closing), suspended = session.suspended ~= '',
    lost = session.lost ~= '', stranded = session.stranded ~= '', recoveries = session.recoveries,
    last_recovery = session.last_recovery ~= '' and cmsgpack.unpack(session.last_recovery) or nil,
    limits = {
      idle_timeout_s = seconds(session.idle_us), hibernate_after_s = seconds(session.hibernate_us),
      max_tokens = positive(session.max_tokens), on_worker_failure = session.on_worker_failure,
      deletion_policy = session.deletion_policy,
    },
  }
end
