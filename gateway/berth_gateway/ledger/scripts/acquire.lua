-- uses: base session slots turn
local now = clock()
local session, refusal = find(args.name, args.uid)
if not session then return refusal end
if replayed(session) and session.holder == args.call then return session.answer end

local mine = session.owner == args.turn
local past = outcome_of(session, args.turn)
local digest = mine and session.digest or past and past.digest
if digest and digest ~= args.digest then
  return refuse('IdempotencyMismatch', 'turn ' .. args.turn .. ' was sent before with another payload')
end
if past and past.state == 'committed' then return ok({uid = session.uid, outcome = past}) end

if session.closing ~= '' then
  return refuse('SessionClosing', 'session ' .. args.name .. ' is closing', {reason = session.closing})
end
if session.suspended ~= '' then
  return refuse('ManagedByResource', 'session ' .. args.name .. ' is suspended by its resource')
end
if not intact(session) then return history_lost(session) end
if leased(session, now) then
  return refuse('TurnInFlight', 'turn ' .. session.owner .. ' runs on session ' .. args.name,
    {turn = session.owner, retry_after = 1})
end
if args.expect_head and args.expect_head ~= session.head then
  return refuse('HeadMismatch', 'the head is another', {head = session.head, turns = session.turns})
end
local length = session.tokens + args.input_tokens
if session.max_tokens > 0 and length > session.max_tokens then
  return refuse('TooLong', int(length) .. ' tokens of history and input, the session may have ' .. int(session.max_tokens),
    {tokens = length, limit = session.max_tokens})
end

local w = session.worker ~= '' and worker(session.worker)
if not usable(w, now) then w = berth(session, now) end
if not w then return no_capacity(session, now) end
served(session)

if session.owner ~= '' then
  if not mine then
    local lost = current(session, now)
    lost.state, lost.reason = 'aborted', 'gateway_lost'
    remember(session, lost)
  end
  store(session, {held = ''})
end
local lease_until = now + args.lease_us
local holds_parent = session.turns == 0 or (session.worker == w.id and session.held == session.head)
local release = bind(session, w, lease_until)
if session.kin ~= '' then store(session, {kin = ''}) end
store(session, {
  epoch = math.max(session.epoch + 1, now), attempt = 1, owner = args.turn, holder = args.call, digest = args.digest,
  input_tokens = args.input_tokens, order = '', moves = 0, lease_until = lease_until,
})
schedule(session)
return answer_once(session, {
  fence = fence_of(session), parent = session.head, turns = session.turns, tokens = session.tokens,
  placement = {worker = w.id, url = w.url, holds_parent = holds_parent}, fingerprint = session.fingerprint,
  max_tokens = positive(session.max_tokens), on_worker_failure = session.on_worker_failure,
  lease_s = args.lease_us / 1e6, release = release,
})
