"""What exists (`catalog.duckdb`), what readers see (`lens.duckdb`), and the way from one to the other."""
