-- uses: base session slots
local w = worker(args.id)
if not w then return ok({known = false}) end
call('HSET', key('worker', args.id), 'suspect_until', args.for_us > 0 and clock() + args.for_us or 0)
changed('worker', args.id, args.for_us > 0 and 'suspect' or 'trusted')
return ok({known = true})
