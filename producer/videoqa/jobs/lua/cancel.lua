-- prefix, id, tenant -> {state after the call}, {'unknown'} or {'unreadable'}
return cancel_job(ARGV[2], ARGV[3])
