"""Jobs: what takes longer than a request. Persisted, cancellable, resumed after a crash of either process."""
