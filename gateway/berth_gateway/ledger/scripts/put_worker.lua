-- uses: base session slots roster
local known = worker(args.id)
if known and known.fleet ~= args.fleet then
  return refuse('Conflict', 'worker ' .. args.id .. ' belongs to fleet ' .. known.fleet, {fleet = known.fleet})
end
local pinned = call('HGET', key('fleet', args.fleet), 'fingerprint')
local bound = call('SCARD', key('fleet', args.fleet, 'workers')) + call('SCARD', key('fleet', args.fleet, 'sessions'))
if pinned and pinned ~= args.fingerprint and bound > 0 then
  return refuse('Conflict', 'fleet ' .. args.fleet .. ' serves another model than worker ' .. args.id,
    {pinned = pinned, fingerprint = args.fingerprint})
end
call('HSET', key('fleet', args.fleet), 'fingerprint', args.fingerprint)
call('SADD', key('fleets'), args.fleet)
call('SADD', key('fleet', args.fleet, 'workers'), args.id)
call('HSET', key('worker', args.id), 'fleet', args.fleet, 'url', args.url, 'slots', args.slots, 'fingerprint',
  args.fingerprint, 'cordoned', args.cordoned and '1' or '0', 'suspect_until', known and known.suspect_until or 0)
local same = known and known.url == args.url and known.slots == args.slots and known.cordoned == args.cordoned
if not same then changed('worker', args.id, known and 'updated' or 'registered') end
return ok(describe(worker(args.id), clock()))
