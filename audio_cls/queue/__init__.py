"""Many runs as one durable list: storage, queue, leases, workers, their supervisor, progress."""
