-- uses: base session slots turn
local now, fence = clock(), args.fence
local session = load(fence.name)
if session and session.uid == fence.uid and replayed(session) then return session.answer end
if not holds(session, fence) then return fence_lost(fence) end

local w = worker(session.worker)
if w and args.suspect_us > 0 then
  call('HSET', key('worker', w.id), 'suspect_until', now + args.suspect_us)
  changed('worker', w.id, 'suspect')
end
if not args.stay then w = roomiest(session.fleet, now, session.worker) end
if not w then return no_capacity(session, now) end
served(session)

local lease_until = now + args.lease_us
local moved = session.worker ~= w.id
local release = bind(session, w, lease_until, nil, args.broke)
store(session, {attempt = session.attempt + 1, moves = session.moves + (moved and 1 or 0), lease_until = lease_until,
  held = ''})
if moved then changed('session', session.name, 'moved') end
return answer_once(session, {
  fence = fence_of(session), placement = {worker = w.id, url = w.url, holds_parent = session.turns == 0},
  moves = session.moves, lease_s = args.lease_us / 1e6, release = release,
})
