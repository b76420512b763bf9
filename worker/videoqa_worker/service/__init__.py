"""The worker process: hears bells, announces itself, reaps, watches over its engine."""
