-- The end of turns and of sessions. An outcome is one field (turn id) of the session's outcomes hash; two lists keep the
-- order in which commits and aborts are forgotten, so that aborts never push a commit out.
local function outcome_of(session, turn)
  local packed = call('HGET', key('outcomes', session.uid), turn)
  return packed and cmsgpack.unpack(packed)
end

local function remember(session, outcome)
  local at = key('outcomes', session.uid)
  local list, kept = key('commits', session.uid), CONFIG.outcomes_kept
  call('LREM', key('aborts', session.uid), 0, outcome.turn)
  if outcome.state == 'aborted' then list, kept = key('aborts', session.uid), CONFIG.aborts_kept end
  call('HSET', at, outcome.turn, cmsgpack.pack(outcome))
  if call('RPUSH', list, outcome.turn) > kept then call('HDEL', at, call('LPOP', list)) end
end

-- The running turn as an outcome, before its end.
local function current(session, now)
  return {turn = session.owner, state = leased(session, now) and 'running' or 'unknown', digest = session.digest,
    epoch = session.epoch, attempt = session.attempt, head = session.head, input_tokens = session.input_tokens,
    worker = text(session.worker), moves = session.moves, retry_safe = true}
end

-- Closed is for ever: the uid leaves a tombstone with the last answer, for a replay that comes after it.
local function entomb(session, reason, answer)
  local release = unbind(session)
  answer.uid, answer.release = session.uid, release
  call('SET', key('tombstone', session.uid), cmsgpack.pack({name = session.name, reason = reason, answer = answer}),
    'PX', CONFIG.tombstone_ms)
  call('UNLINK', key('session', session.name), key('outcomes', session.uid), key('commits', session.uid),
    key('aborts', session.uid))
  call('ZREM', key('sessions'), session.name)
  call('ZREM', key('due'), session.name)
  call('SREM', key('fleet', session.fleet, 'sessions'), session.name)
  call('ZREM', key('fleet', session.fleet, 'waiting'), session.name)
  changed('session', session.name, 'closed')
  return answer
end

local function tombstone(uid)
  local packed = call('GET', key('tombstone', uid))
  return packed and cmsgpack.unpack(packed)
end

-- Tells whoever runs the turn to end it: `stop` commits what was said, `abort` does not.
local function command(session, mode)
  call('PUBLISH', CONFIG.orders, cmsgpack.pack({namespace = namespace, name = session.name, uid = session.uid,
    turn = session.owner, mode = mode}))
end

-- Ends the tenure with this outcome, and the session where a close was deferred. Returns the answer to give.
local function finish(session, outcome, now)
  remember(session, outcome)
  store(session, {owner = '', holder = '', order = '', lease_until = 0, last_active = now})
  local answer = {outcome = outcome, closed = false}
  if session.closing ~= '' then
    answer.closed = true
    return entomb(session, session.closing, answer)
  end
  local w = session.suspended == '' and session.worker ~= '' and worker(session.worker)
  if w then
    bind(session, w, nil, now)
    schedule(session)
    answer.release = make_room(w, 0) -- turns beyond the slots were queued there: their sessions cannot all stay
  else
    answer.release = unbind(session, session.suspended == '' and 'hibernated' or 'suspended')
    schedule(session)
  end
  return answer
end

-- An aborted turn's slot is wiped by its worker.
local function finish_aborted(session, reason, retry_safe, now)
  local outcome = current(session, now)
  store(session, {held = ''})
  outcome.state, outcome.reason, outcome.retry_safe = 'aborted', reason, retry_safe
  return finish(session, outcome, now)
end

-- Whether this fence still rules; (epoch, attempt, turn id) decide, time does not.
local function holds(session, fence)
  return session and session.uid == fence.uid and session.owner == fence.turn and session.epoch == fence.epoch
    and session.attempt == fence.attempt
end

local function fence_lost(fence)
  return refuse('FenceLost', 'turn ' .. fence.turn .. ' at epoch ' .. int(fence.epoch) .. ', attempt '
    .. int(fence.attempt) .. ' was taken over or has ended')
end

-- What the act of this very fence was answered before: its outcome, kept in the session or in its tombstone.
local function answered(session, fence)
  local answer
  if session and session.uid == fence.uid then
    local outcome = outcome_of(session, fence.turn)
    answer = outcome and {outcome = outcome, closed = false}
  else
    local stone = tombstone(fence.uid)
    answer = stone and stone.answer.outcome and stone.answer
  end
  local outcome = answer and answer.outcome
  if outcome and outcome.turn == fence.turn and outcome.epoch == fence.epoch and outcome.attempt == fence.attempt then
    return answer
  end
end

-- Fence-making operations leave their answer under the id of the call, for a blind replay of it.
local function replayed(session) return session.call == args.call and session.answer ~= '' end

local function answer_once(session, result)
  local packed = cmsgpack.pack(result)
  store(session, {call = args.call, answer = packed})
  return packed
end

local function fence_of(session)
  return {namespace = namespace, name = session.name, uid = session.uid, turn = session.owner, epoch = session.epoch,
    attempt = session.attempt, holder = session.holder}
end

-- A turn without a worker waits: counted for a while, so that someone may make room, and nothing else changes.
local function no_capacity(session, now)
  local waiting = key('fleet', session.fleet, 'waiting')
  call('ZREMRANGEBYSCORE', waiting, '-inf', int(now))
  if call('ZADD', waiting, now + CONFIG.waiting_us, session.name) == 1 then
    changed('fleet', session.fleet, 'waiting')
  end
  return refuse('NoCapacity', 'fleet ' .. session.fleet .. ' has no worker for it now', {retry_after = 1})
end

local function served(session)
  if call('ZREM', key('fleet', session.fleet, 'waiting'), session.name) == 1 then
    changed('fleet', session.fleet, 'served')
  end
end
