"""The HTTP face: REST under /api/v1, pages at the root. Thin routes over `service.store` and `service.jobs`."""
