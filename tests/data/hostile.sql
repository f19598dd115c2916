-- Statements that POST /sql must refuse or stop, each with a 4xx, in DuckDB 1.5 and 2.0.
--
-- A statement is the lines below its "--!" line, up to the next "--!" or "--#" line. "--! refused" is said by the gate
-- before anything runs; "--! stopped" passes the gate and meets a limit or an error. {out} is an empty directory that
-- must stay empty, {lens} the published database, {data} the data directory.

--# Data-modifying common table expressions: one SELECT for DuckDB 2.0
--! refused: COPY writes a file
with x as (copy (select 1) to '{out}/f') select 1
--! refused: COPY writes a file even where nothing reads the expression
with x as materialized (copy runs to '{out}/f.parquet') select 1
--! refused: COPY reads a file into a table
with x as (copy runs from '/etc/passwd') select 1
--! refused: INSERT
with x as (insert into runs select * from runs returning *) select * from x
--! refused: DELETE
with x as (delete from runs returning *) select * from x
--! refused: UPDATE
with x as (update runs set run = 'mine' returning *) select * from x
--! refused: MERGE
with x as (merge into runs using checkpoints on runs.run = checkpoints.run when matched then delete returning *) from x
--! refused: INSERT in a subquery of an expression of a common table expression
with a as (select (with b as (insert into runs select * from runs returning *) select count(*) from b)) select * from a
--! refused: COPY in a subquery in FROM in a union
select 1 union all select * from (with w as (copy (select 1) to '{out}/f') select 1)
--! refused: COPY in a lateral join
select * from runs, lateral (with w as (copy (select 1) to '{out}/f') select runs.run)
--! refused: DELETE in a list comprehension's subquery
select [x for x in (with d as (delete from runs returning n_steps) select list(n_steps) from d)]
--! refused: COPY in LIMIT
select 1 limit (with w as (copy (select 1) to '{out}/f') select 1)
--! refused: COPY in a frame bound
select sum(step) over (rows between (with w as (copy (select 1) to '{out}/f') select 1) preceding and current row) from tokens
--! refused: COPY in what DESCRIBE describes
describe with w as (copy (select 1) to '{out}/f') select 1

--# Table functions with side effects
--! refused: creates directories
from enable_logging('QueryLog', storage := 'file', storage_config := {'path': '{out}'})
--! refused: creates directories, hidden in a subquery of an expression
select (select count(*) from enable_logging(storage_path = '{out}'))
--! refused: writes a profile
from enable_profiling(save_location := '{out}/profile.json')
--! refused: checkpoints a database
from checkpoint('lens')
--! refused: checkpoints a database
select * from force_checkpoint()
--! refused: empties the logs
from truncate_duckdb_logs()

--# Files
--! refused: reads any file
select * from read_text('/etc/passwd')
--! refused: reads the database file
from read_blob('{lens}')
--! refused: opens the catalog
from read_duckdb('{lens}', table_name := 'runs')
--! refused: reads the segments past their view
from read_parquet('{data}/tokens/*/*.parquet')
--! refused: an alias of read_parquet
from parquet_scan('{data}/tokens/*/*.parquet')
--! refused: reads a CSV file
from read_csv('/etc/passwd')
--! refused: reads a CSV file
from read_csv_auto('/etc/passwd', delim = ':')
--! refused: reads a JSON file
from read_json('/etc/hosts')
--! refused: reads a JSON file
from read_ndjson_objects('/etc/hosts')
--! refused: reads a file's schema
from parquet_schema('{data}/tokens/*/*.parquet')
--! refused: reads a file's metadata
from parquet_kv_metadata('{data}/tokens/*/*.parquet')
--! refused: lists directories
from glob('/*')
--! refused: reads the start of a file
from sniff_csv('/etc/passwd')
--! refused: a path as a table
from '/etc/passwd'
--! refused: a path as a quoted table name
select * from "{data}/rollouts/r1/1/a.parquet"
--! refused: a URL as a table
from 'https://example.com/x.parquet'
--! refused: a path as a table, in a common table expression's own body
with "{lens}" as (select * from "{lens}") select * from "{lens}"
--! refused: a path described
describe '/etc/passwd'
--! refused: a path summarized
summarize '{data}/rollouts/r1/1/a.parquet'
--! refused: a path pivoted
pivot '/etc/passwd.csv' on a in (1) using count(*)
--! refused: a path with a sample
from '/etc/passwd' using sample 1
--! refused: a path with an alias that looks like a table
select tokens.* from '/etc/passwd' tokens

--# SQL inside a string, or a name made at run time
--! refused: runs its argument
from query('select 42')
--! refused: reads the table it is told
from query_table('runs')
--! refused: reads the tables it is told
from query_table(['runs', 'duckdb_settings'])
--! refused: runs a serialised statement
from json_execute_serialized_sql(json_serialize_sql('select 42'))
--! refused: binds its argument, files included
select json_serialize_plan('select * from read_csv(''/etc/passwd'')')
--! refused: parses its argument
select json_serialize_sql('select 1')
--! refused: reads a Python object by its address
from arrow_scan(1, 2, 3)
--! refused: reads a Python object by its address
from pandas_scan(140000000000000)
--! refused: runs a Python function by its address
from python_map_function(1, 2)

--# Table functions wherever one can stand
--! refused: in EXISTS
select exists (from glob('/*'))
--! refused: in IN
select 1 where 'a' in (select file from glob('/*'))
--! refused: in a common table expression that nothing reads
with g as (from glob('/*')) select 1
--! refused: in the recursive part
with recursive r as (select 1 as i union all select i + 1 from r, glob('/*') where i < 3) from r
--! refused: lateral
select * from tokens t, lateral (select * from read_text(t.token))
--! refused: positional join
select * from runs positional join glob('/*')
--! refused: ASOF join
select * from tokens asof join read_csv('/etc/passwd') f on tokens.step >= f.step
--! refused: semi join
select * from runs semi join glob('/*') g on g.file = run
--! refused: in ORDER BY
select 1 order by (select count(*) from glob('/*'))
--! refused: in FILTER
select count(*) filter (exists (from glob('/*'))) from runs
--! refused: in QUALIFY
from tokens qualify row_number() over () = (select count(*) from glob('/*'))
--! refused: in the values of a list
values ((select count(*) from glob('/*')))
--! refused: in UNPIVOT
from (from glob('/*')) unpivot (v for k in (file))
--! refused: as an argument of an allowed one
from range((select count(*) from glob('/*')))
--! refused: qualified
from system.main.glob('/*')
--! refused: a table function that repeats, with another case and quotes
from "RepEat"(1, 10)
--! refused: sequential scan of a table by name
from seq_scan('runs')
--! refused: in an asterisk's REPLACE
select * replace ((select count(*) from glob('/*')) as run) from runs

--# The catalog, the settings and the session
--! refused: tables of the catalog
from information_schema.tables
--! refused: tables of the catalog
select * from pg_catalog.pg_tables
--! refused: tables of the catalog, found without a schema
from pg_tables
--! refused: tables of the catalog
from sqlite_master
--! refused: tables of the catalog
select * from lens.sqlite_master
--! refused: the settings, as a view
from duckdb_settings
--! refused: the settings, as a table function
from duckdb_settings()
--! refused: the secrets
from duckdb_secrets()
--! refused: the attached files
from duckdb_databases()
--! refused: the views' text, with the data directory in it
select sql from duckdb_views()
--! refused: the variables
from duckdb_variables()
--! refused: a table of the catalog behind a common table expression of its name
with duckdb_settings as (select * from duckdb_settings) select * from duckdb_settings
--! refused: a common table expression used where it cannot be seen
select * from (with pg_tables as (select 1) from pg_tables) a, pg_tables b
--! refused: a common table expression used before it is defined
with a as (from pg_tables), pg_tables as (select 1) from a
--! refused: itself in the part of a recursive expression that starts it
with recursive pg_tables as (select * from pg_tables union all select * from pg_tables) from pg_tables
--! refused: other databases
from memory.main.tokens
--! refused: qualified with a schema
from main.runs
--! refused: another version of a table
from runs at (version => 1)
--! refused: the environment
select getenv('DPPO_TOKEN')
--! refused: the environment, by method call
select ('DPPO_TOKEN').getenv()
--! refused: a setting
select current_setting('allowed_directories')
--! refused: a setting, with another case and a path
select system.main."Current_Setting"('temp_directory')
--! refused: the data directory's path
select getvariable('dppo_data')
--! refused: a setting, in a default of a window function
select lag(step, 1, current_setting('threads')::int) over (order by position) from tokens
--! refused: a setting, in a lambda
select list_transform([1], lambda x: current_setting('threads'))
--! refused: a setting, in GROUP BY of HAVING of a subquery
select (select 1 from runs group by current_setting('threads') having count(*) > 0)
--! refused: the statement's own text as the child holds it
select current_query()
--! refused: where names are looked up
select current_schemas(true)
--! refused: ids of transactions
select txid_current()
--! refused: how values are stored
select stats(step) from tokens
--! refused: memory taken for an aggregate's state
select finalize('abcdefgh'::blob)
--! refused: an aggregate's state as a value
select sum(step) export_state from tokens
--! refused: internals
select __internal_decompress_string('a'::blob)
--! refused: writes to the log
select write_log('x', level := 'error')
--! refused: sequences
select nextval('s')
--! refused: raises what it is told
select error('mine')
--! refused: waits
select sleep_ms(100000)
--! refused: waits
select pg_sleep(100)
--! refused: SHOW
show tables
--! refused: SHOW of everything
show all tables
--! refused: DESCRIBE without a name
describe
--! refused: SHOW in FROM
from (show databases)
--! refused: SHOW in FROM of a common table expression
with t as (from (show tables)) select * from t

--# Other statements
--! refused: SET
set enable_external_access = true
--! refused: SET VARIABLE
set variable dppo_data = '/etc'
--! refused: RESET
reset memory_limit
--! refused: ATTACH
attach '{data}/catalog.duckdb' as c
--! refused: DETACH
detach lens
--! refused: USE
use memory
--! refused: INSTALL
install httpfs
--! refused: LOAD
load '{out}/x.duckdb_extension'
--! refused: PRAGMA
pragma database_list
--! refused: PRAGMA with a value
pragma threads = 64
--! refused: CALL
call pragma_version()
--! refused: EXPORT
export database '{out}'
--! refused: IMPORT
import database '{out}'
--! refused: CREATE
create table x as select 1
--! refused: CREATE VIEW
create temp view runs as from read_text('/etc/passwd')
--! refused: CREATE MACRO
create macro f() as table from read_text('/etc/passwd')
--! refused: CREATE SECRET
create secret s (type http)
--! refused: DROP
drop table runs
--! refused: ALTER
alter table runs add column x int
--! refused: COMMENT
comment on table runs is 'mine'
--! refused: COPY
copy (select 1) to '{out}/f'
--! refused: COPY to standard output
copy runs to '/dev/stdout'
--! refused: INSERT
insert into runs select * from runs
--! refused: DELETE
delete from runs
--! refused: UPDATE
update runs set run = 'mine'
--! refused: TRUNCATE
truncate runs
--! refused: EXPLAIN
explain select 1
--! refused: EXPLAIN ANALYZE, which runs the statement
explain analyze copy (select 1) to '{out}/f'
--! refused: PREPARE
prepare p as select 1
--! refused: EXECUTE
execute p
--! refused: VACUUM
vacuum
--! refused: CHECKPOINT
checkpoint
--! refused: BEGIN
begin transaction
--! refused: COMMIT
commit
--! refused: a PIVOT without IN, which is two statements
pivot tokens on step using count(*)
--! refused: a parameter
select $1
--! refused: a named parameter
select * from tokens where step = $step
--! refused: SELECT INTO
select * into mine from runs
--! refused: FOR UPDATE
select * from runs for update

--# Two statements
--! refused: plainly
select 1; select 2
--! refused: on another line
select 1;

drop table runs
--! refused: behind a comment
select 1 -- ; harmless
; copy (select 1) to '{out}/f'
--! refused: behind a comment within a comment
select 1 /* /* */ ; */ ; drop table runs
--! refused: behind a dollar-quoted string
select $a$ ; $a$; drop table runs
--! refused: behind an escaped string
select e'\'' ; copy (select 1) to '{out}/f' --'
--! refused: behind an ideographic space
select 1　;　drop table runs
--! refused: nothing but a comment
-- select 1
--! refused: nothing but semicolons
;;;

--# Not SQL at all
--! refused: no statement
hello
--! refused: an open string
select 'a
--! refused: an open comment
select 1 /*
--! refused: an open parenthesis
select (1

--# Too much time
--! stopped: endless cross join
select count(*) from range(10000000000) a, range(10000000000) b
--! stopped: endless recursion
with recursive r as (select 1 as i union all select i from r) select count(*) from r
--! stopped: an expression of an expression of a long list
select list_sum(list_transform(range(1000000), lambda x: list_sum(list_transform(range(1000000), lambda y: x * y))))
--! stopped: a string format a GB wide
select length(printf('%1000000000d', 1))
--! stopped: comparison of two long strings
select levenshtein(repeat('a', 100000), repeat('b', 100000))
--! stopped: a regular expression over a long string, again and again
select sum(length(regexp_replace(repeat('ab', 1000000), '(a|b|ab)*?c|(a?){200}b', 'x', 'g'))) from range(1000000)
--! stopped: a correlated subquery without end
select count(*) from range(100000000) a(i) where (select max(j * i) from range(1000000) b(j) where j <> i) > 0
--! stopped: a sort without end
select * from range(1000000000000) order by hash(range)
--! stopped: a window without end
select max(s) from (select sum(i) over (order by hash(i)) s from range(1000000000000) t(i))

--# Too much memory
--! stopped: a string of 2 GB
select repeat('x', 2000000000)
--! stopped: a string that doubles
with recursive r as (select 'x' as s union all select s || s from r where length(s) < 4000000000) select max(s) from r
--! stopped: a list of a trillion
select range(1000000000000)
--! stopped: a list of four billion
select range(4000000000)
--! stopped: a list under an aggregate
select list_aggregate(range(300000000), 'histogram')
--! stopped: lists of lists
select list_sum(flatten(list_transform(range(100000), lambda x: range(100000))))
--! stopped: an aggregate that keeps everything
select length(string_agg(repeat('x', 1000000), '')) from range(100000)
--! stopped: an array of everything
select length(array_agg(i)) from range(10000000000) t(i)
--! stopped: a hash table of everything
select count(distinct i) from range(100000000000) t(i)
--! stopped: a long padding
select length(lpad('x', 1999999999, 'y'))
--! stopped: a map of everything
select histogram(i) from range(1000000000) t(i)

--# Too large a result
--! stopped: too many rows
select * from range(100000000)
--! stopped: too many rows, after a long string each
select repeat('x', 10000) from range(1000000)
--! stopped: one row too large
select list(repeat('x', 1000)) from range(400000)

--# Errors of a statement that is allowed
--! stopped: no such column
select nothing from tokens
--! stopped: cannot be converted
select 'a'::int
--! stopped: an overflow
select 9223372036854775807 + 1
--! stopped: a subquery of two rows
select (select unnest([1, 2]))
--! stopped: no such type
select 1::aggregate_state
--! stopped: a scalar function where DuckDB looks for an aggregate
select list_aggregate([1], 'read_text')
