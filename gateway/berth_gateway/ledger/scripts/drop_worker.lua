-- uses: base session slots
-- The running zset stays: its turns move or end by themselves and take their entries along. A turn that still hears its
-- worker (only the operator does not) may well commit.
local done = before()
if done then return done end
local w = worker(args.id)
if not w then return ok({known = false}) end
for _, name in ipairs(call('ZRANGE', key('worker', args.id, 'idle'), 0, -1)) do
  local session = load(name)
  if session then
    strand(session)
    unbind(session)
    schedule(session)
  end
end
for _, name in ipairs(call('ZRANGE', key('worker', args.id, 'running'), 0, -1)) do
  local session = load(name)
  if session and session.worker == args.id then strand(session) end
end
call('SREM', key('fleet', w.fleet, 'workers'), args.id)
call('DEL', key('worker', args.id), key('worker', args.id, 'idle'))
changed('worker', args.id, 'dropped')
return once({known = true})
