-- uses: base session slots turn
local now, fence = clock(), args.fence
local session = load(fence.name)
if session and session.uid == fence.uid and replayed(session) then return session.answer end
if not holds(session, fence) then return fence_lost(fence) end
local lease_until = now + args.lease_us
store(session, {epoch = math.max(session.epoch, args.seen_epoch, now - 1) + 1, attempt = 1, lease_until = lease_until})
call('ZADD', key('worker', session.worker, 'running'), 'XX', lease_until, session.name)
return answer_once(session, fence_of(session))
