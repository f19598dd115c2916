"""One statement in its own process: what analysts write is answered, what would harm is stopped, nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from service.errors import Invalid, LensError, LimitReached, StatementRefused, WorkerFailed
from service.settings import Settings
from service.store.sandbox import run_sql
from tests.store.friendly_statements import FRIENDLY
from tests.store.hostile_statements import Hostile, generated, written
from tests.store.lens_fixture import make_data_dir

MODULES = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_data_dir(folder)
    return folder


def read(sql: str, data: Path, **settings: Any) -> pa.Table:
    with run_sql(sql, lens=data / "lens.duckdb", data_dir=data, settings=Settings(**settings)) as result:
        table = pa.ipc.open_stream(b"".join(result)).read_all()
        assert result.rows == table.num_rows
    return table


def rows(sql: str, data: Path) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in read(sql, data).to_pylist()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def answers(data: Path) -> Iterator[dict[str, Future[list[tuple[Any, ...]]]]]:
    """Every friendly statement, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {sql: pool.submit(rows, sql, data) for sql in FRIENDLY}


@pytest.mark.parametrize("sql", FRIENDLY)
def test_what_analysts_write_is_answered(sql: str, answers: dict[str, Future[list[tuple[Any, ...]]]]) -> None:
    assert answers[sql].result() == [
        tuple(pytest.approx(cell) if isinstance(cell, float) else cell for cell in row) for row in FRIENDLY[sql]
    ]


def test_every_hostile_statement_is_a_4xx(data: Path, tmp_path: Path) -> None:
    """The statements that name a path or need the sandbox; test_gate asks the gate about all the others too."""
    chosen = [each for each in written() if not each.refused or "{" in each.sql] + generated()
    before = files(data)

    def outcome(statement: Hostile) -> str:
        sql = statement.at(out=tmp_path, data=data)
        seconds = 5 if statement.refused else 0.5
        started = time.monotonic()
        try:
            with run_sql(
                sql,
                lens=data / "lens.duckdb",
                data_dir=data,
                settings=Settings(sql_seconds=seconds, sql_memory_bytes=200 << 20, sql_bytes=20 << 20),
            ):
                return f"{statement.reason}: was answered"
        except LensError as error:
            if not 400 <= error.status < 500:
                return f"{statement.reason}: {error.status} {error}"
            if statement.refused and isinstance(error, LimitReached) and len(sql) < 10_000:
                return f"{statement.reason}: reached a limit instead of the gate: {error}"
            if str(data) in error.detail and str(data) not in sql:
                return f"{statement.reason}: tells where the data lies: {error}"
        taken = time.monotonic() - started
        return "" if taken < 15 else f"{statement.reason}: took {taken:.0f} s"

    with ThreadPoolExecutor(3) as pool:
        wrong = [text for text in pool.map(outcome, chosen) if text]
    assert len(chosen) > 80
    assert wrong == []
    assert list(tmp_path.iterdir()) == []
    assert files(data) == before
    assert rows("select run from runs", data) == [("run-1",)]


def test_an_empty_result_keeps_its_columns(data: Path) -> None:
    table = read("select step, token, tv_binary from tokens where analysis = 'none'", data)
    assert table.schema.names == ["step", "token", "tv_binary"]
    assert [str(kind) for kind in table.schema.types] == ["int32", "string", "double"]
    assert table.num_rows == 0


def test_every_type_arrives_as_an_arrow_type(data: Path) -> None:
    table = read(
        "select 170141183460469231731687303715884105727::hugeint as hugeint, 1.5::decimal(38, 3) as decimal, "
        "'7f3c0f4e-0000-4000-8000-000000000000'::uuid as uuid, 'b'::enum('a', 'b') as enum, now() as timestamptz, "
        "'12:00:00+01'::timetz as timetz, time '12:00' as time, interval 1 month as interval, 'x'::blob as blob, "
        "'101'::bit as bit, {'a': [1, null]} as struct, map {'k': 1} as map, [1, 2]::int[2] as array, "
        "union_value(n := 1) as union, '{\"a\": 1}'::json as json, null as nothing, 'infinity'::double as infinity, "
        "'-infinity'::date as day, 18446744073709551615::ubigint as ubigint, 1::uhugeint as uhugeint",
        data,
    )
    row = table.drop_columns(["timestamptz", "interval", "day"]).to_pylist()[0]
    assert row["hugeint"] == 2**127 - 1
    assert row["decimal"] == Decimal("1.5")
    assert row["uuid"] == "7f3c0f4e-0000-4000-8000-000000000000"
    assert row["enum"] == "b"
    assert row["struct"] == {"a": [1, None]}
    assert row["map"] == [("k", 1)]
    assert row["array"] == [1, 2]
    assert row["json"] == '{"a": 1}'
    assert row["nothing"] is None
    assert row["infinity"] == float("inf")
    assert row["ubigint"] == 2**64 - 1
    assert str(table.schema.field("timestamptz").type) == "timestamp[us, tz=UTC]"


def test_a_result_may_have_as_many_rows_as_the_limit(data: Path) -> None:
    assert read("from range(20000)", data, sql_rows=20_000).num_rows == 20_000
    with pytest.raises(LimitReached, match=r"more than 20,000 rows; add LIMIT, a filter or an aggregate"):
        read("from range(20001)", data, sql_rows=20_000)


def test_a_result_may_have_as_many_bytes_as_the_limit(data: Path) -> None:
    sql = "select range as i, repeat('x', 100) as s from range(50000)"
    with run_sql(sql, lens=data / "lens.duckdb", data_dir=data, settings=Settings()) as result:
        size = result.size
        assert size == sum(len(chunk) for chunk in result) > 50_000 * 108
    read(sql, data, sql_bytes=size)
    with pytest.raises(LimitReached, match=r"larger than 5 MiB; add LIMIT, an aggregate, or fewer columns"):
        read(sql, data, sql_bytes=size - 1)


def test_a_statement_may_take_as_long_as_the_limit(data: Path) -> None:
    endless = "with recursive r as (select 1 as i union all select i from r) select count(*) from r"
    started = time.monotonic()
    with pytest.raises(LimitReached, match=r"longer than 0.5 s; filter by analysis and step"):
        read(endless, data, sql_seconds=0.5)
    assert 0.5 < time.monotonic() - started < 10


def test_a_statement_may_take_as_much_memory_as_the_limit(data: Path) -> None:
    sql = "select count(distinct i) from range(2000000) t(i)"
    assert rows(sql, data) == [(2_000_000,)]
    with pytest.raises(LimitReached, match=r"more than 20 MiB of memory; filter or aggregate earlier"):
        read(sql, data, sql_memory_bytes=20 << 20)


def test_an_error_is_duckdbs_own(data: Path) -> None:
    with pytest.raises(Invalid, match=r'"log_ration" not found'):
        read("select log_ration from tokens", data)
    with pytest.raises(StatementRefused, match='The table function "glob" is not allowed'):
        read("from glob('/*')", data)


def test_an_error_does_not_tell_where_the_data_lies(tmp_path: Path) -> None:
    make_data_dir(tmp_path)
    (tmp_path / "rollouts/r1/1/part.parquet").write_bytes(b"not Parquet")
    with pytest.raises(Invalid, match=r"…/rollouts/r1/1/part\.parquet") as error:
        read("from rollouts", tmp_path)
    assert str(tmp_path) not in error.value.detail


def test_a_database_that_cannot_be_opened_is_our_fault(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match=r"lens\.duckdb cannot be opened: IOException") as error:
        read("select 1", tmp_path)
    assert str(tmp_path) not in error.value.detail


def test_a_data_directory_may_move_and_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_data_dir(tmp_path / "first")
    shutil.move(tmp_path / "first", tmp_path / "o'brien; drop — data")
    monkeypatch.chdir(tmp_path)
    sql = "select count(*) from tokens join rollouts using (step, sample_id)"
    assert rows(sql, Path("o'brien; drop — data")) == [(8,)]


def test_many_threads_get_each_their_own_answer(data: Path) -> None:
    open_files = len(list(Path("/dev/fd").iterdir()))
    with ThreadPoolExecutor(6) as pool:
        statements = [f"select {i}, count(*) from tokens where position < {i}" for i in range(12)]
        answers = list(pool.map(lambda sql: rows(sql, data), statements))
    # positions: x 0 1 2, y 0 1, z 0 1 2
    assert answers == [[(i, (0, 3, 6, 8)[min(i, 3)])] for i in range(12)]
    assert len(list(Path("/dev/fd").iterdir())) == open_files


def child_pids() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


@contextlib.contextmanager
def running(data: Path) -> Iterator[tuple[int, Callable[[], BaseException | None]]]:
    """An endless statement in another thread: its process id, and what waits for the error it ends with."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            read("with recursive r as (select 1 as i union all select i from r) select count(*) from r", data)
        except LensError as error:
            errors.append(error)

    before = child_pids()
    thread = threading.Thread(target=run)
    thread.start()
    while not (pids := child_pids() - before):
        time.sleep(0.01)
    (pid,) = pids
    limits = Path(f"/proc/{pid}/limits")
    while "Max address space         unlimited " in limits.read_text():  # the last one that it sets
        time.sleep(0.01)

    def end() -> BaseException | None:
        thread.join(20)
        return errors[0] if errors else None

    try:
        yield pid, end
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        end()


@linux
def test_the_child_knows_no_secret_and_may_not_write(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPPO_TOKEN", "a secret")
    with running(data) as (pid, _):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        names = {entry.split(b"=")[0].decode() for entry in environment if entry}
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        descriptors = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert names == {"PYTHONPATH", "LC_ALL", "ARROW_DEFAULT_MEMORY_POOL", "MALLOC_ARENA_MAX"}
    assert limits["Max file size"] == limits["Max core file size"] == ["0", "0"]
    assert limits["Max cpu time"] == ["22", "22"]  # 10 s on two threads, and 2 s
    assert 1 << 30 < int(limits["Max address space"][1]) < 4 << 30
    assert [each for each in descriptors if each.startswith("/") and not each.startswith("/dev/")] == [
        str(data / "lens.duckdb")
    ]


@linux
def test_a_child_that_dies_is_a_4xx(data: Path) -> None:
    with running(data) as (pid, end):
        os.kill(pid, signal.SIGSEGV)
        error = end()
    assert isinstance(error, LimitReached)
    assert "ended its process" in error.detail
    assert not Path(f"/proc/{pid}").exists()


@linux
def test_a_child_ends_by_itself_when_its_parent_is_killed(data: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN, str(data)], env=MODULES)
    try:
        while not (pids := Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()):
            time.sleep(0.01)
        while "Max file size             0 " not in Path(f"/proc/{pids[0]}/limits").read_text():
            time.sleep(0.01)
    finally:
        parent.kill()
        parent.wait()
    state = Path(f"/proc/{pids[0]}/stat")
    deadline = time.monotonic() + 20
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":  # Z: dead, init has yet to notice
        assert time.monotonic() < deadline
        time.sleep(0.1)


ORPHAN = """
import sys
from pathlib import Path
from service.settings import Settings
from service.store.sandbox import run_sql
data = Path(sys.argv[1])
endless = "with recursive r as (select 1 as i union all select i from r) select count(*) from r"
run_sql(endless, lens=data / "lens.duckdb", data_dir=data, settings=Settings(sql_seconds=1))
"""

SECOND_WALL = """
import json, sys
from pathlib import Path
import pyarrow
from service.store.sql_child import limit_process, open_lens
connection = open_lens(Path(sys.argv[1]) / "lens.duckdb", Path(sys.argv[1]), 200 << 20)
limit_process(5, 200 << 20)
variable = pyarrow.table({"a": [1]})
outcomes = {}
for sql in json.load(sys.stdin):
    try:
        outcomes[sql] = repr(connection.execute(sql).fetchall())
    except Exception as error:
        outcomes[sql] = type(error).__name__
print(json.dumps(outcomes))
"""


def test_behind_the_gate_stands_a_second_wall(data: Path, tmp_path: Path) -> None:
    """What would get past the gate still finds no file to read, none to write and no setting to change.

    But for enable_logging: 1.5 lets it create directories wherever it likes, and only the gate keeps it away.
    """
    (tmp_path / "secret.csv").write_text("a\nsecret\n")
    (data / "catalog.duckdb").write_bytes((data / "lens.duckdb").read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    hostile = [
        f"copy (select 1) to '{out}/f.csv'",
        f"copy (select 1) to '{out}/f.parquet'",
        f"export database '{out}'",
        f"attach '{out}/new.duckdb'",
        f"attach '{data}/catalog.duckdb' as catalog (read_only)",
        f"from '{tmp_path}/secret.csv'",
        f"from read_text('{tmp_path}/secret.csv')",
        f"from read_csv('{data}/tokens/../../{tmp_path.name}/secret.csv')",
        f"from read_blob('{data}/catalog.duckdb')",
        f"from glob('{tmp_path}/*')",
        f"load '{out}/x.duckdb_extension'",
        "install httpfs",
        "set enable_external_access = true",
        "set allowed_directories = ['/']",
        "set memory_limit = '100GB'",
        "set temp_directory = '/tmp'",
        "reset lock_configuration",
        "insert into lens.runs select * from lens.runs",
        "drop table lens.runs",
        "from variable",
    ]
    done = subprocess.run(
        [sys.executable, "-c", SECOND_WALL, str(data)],
        env=MODULES,
        input=json.dumps(hostile),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    outcomes = json.loads(done.stdout)
    assert {sql: outcome for sql, outcome in outcomes.items() if not outcome.endswith(("Exception", "Error"))} == {}
    assert outcomes["drop table lens.runs"] == "InvalidInputException"  # attached read-only
    assert list(out.iterdir()) == []
    (data / "catalog.duckdb").unlink()
    assert rows("select run from runs", data) == [("run-1",)]
