"""What is odd about a file that is imported all the same: found while it is read, told once, with count and examples.

Each module is a family of checks, each check a class with `observe(columns)` and `findings()` (`finding.Check`);
`report` runs them. A *warning* says that something is likely wrong and changes results, a *note* what normal logs have
too. All work on settled columns, chunk by chunk, in memory that does not grow with the file beyond a stated bound. None
needs a model: what the checkpoints say of a log is the worker's to find.
"""
