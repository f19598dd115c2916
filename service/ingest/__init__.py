"""From an uploaded file of rollout records to validated Parquet pieces, in a child process.

The child is `python -m service.ingest`; `pipeline.ingest` is what it does. A record's way:

    source    opens the file (containers, lines, parquet) and gives chunks of native records (adapters)
    ndjson    and parquet read a chunk to columns
    check     finds the rows that may break a rule; examine says what is wrong with them
    rows      settles what is kept, and hashes it
    findings  notice what is odd about it
    seen      compares with the other records of the file and of the step
    pieces    writes
"""
