-- Rings for jobs that their tenant's limit held back until the attempt at this one ended.
-- prefix, id, most jobs of a tenant that run at once -> {{id, attempt, bell, queue}...} to ring
return ring_next(ARGV[2], tonumber(ARGV[3]))
