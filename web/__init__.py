"""What people see: figure factories, templates and static files. No statistics, no SQL."""
