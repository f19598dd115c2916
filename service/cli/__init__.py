"""The `dppo` command."""
