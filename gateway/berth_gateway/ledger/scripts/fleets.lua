-- uses: base
local names = call('SMEMBERS', key('fleets'))
table.sort(names)
return ok(names)
