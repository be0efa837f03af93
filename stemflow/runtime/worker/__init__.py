"""The worker: it leases what is ready, runs it, reports what became of it, and renews its leases meanwhile."""
