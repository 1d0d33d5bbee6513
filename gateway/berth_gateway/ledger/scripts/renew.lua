-- uses: base session
-- By tenure (turn and holder) and not by attempt: a renewal may cross a move of the same holder.
local fence = args.fence
local session = load(fence.name)
if not session or session.uid ~= fence.uid or session.owner ~= fence.turn or session.holder ~= fence.holder then
  return refuse('FenceLost', 'turn ' .. fence.turn .. ' was taken over or has ended')
end
local lease_until = clock() + args.lease_us
store(session, {lease_until = lease_until})
call('ZADD', key('worker', session.worker, 'running'), 'XX', lease_until, session.name)
return ok({lease_s = args.lease_us / 1e6, order = text(session.order)})
