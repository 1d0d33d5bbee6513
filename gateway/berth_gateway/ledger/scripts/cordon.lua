-- uses: base session slots
local w = worker(args.id)
if not w then return ok({known = false}) end
if w.cordoned ~= args.on then
  call('HSET', key('worker', args.id), 'cordoned', args.on and '1' or '0')
  changed('worker', args.id, args.on and 'cordoned' or 'uncordoned')
end
return ok({known = true})
