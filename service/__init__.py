"""DPPO Lens: the service around `dppo_core` (ingest, store, jobs, worker, API, command line, client)."""
