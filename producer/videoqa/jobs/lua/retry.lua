-- prefix, id, tenant, API key's id or '', its limits or ''
-- -> {'ok', queue to ring or '', the key's use}, {'limit', its name, the key's use}, {'state', state}, {'unknown'} or
-- {'unreadable'}
return retry_job(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
