-- prefix, id, tenant -> {'ok'}: the final job's record is gone now; {'state', state}, {'unknown'} or {'unreadable'}
return purge_job(ARGV[2], ARGV[3])
