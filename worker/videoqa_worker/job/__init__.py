"""One job on a worker: claim, lease, fetch, sample, ask, store, finish."""
