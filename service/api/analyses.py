"""Analyses: ask for one, read its tables, figures, rollouts and tokens, take it home as a database."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from fastapi import APIRouter, Query, Request, Response
from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from service.api.jobs import job_out
from service.api.problems import CleanJSON
from service.api.state import ServicesDep
from service.api.views import FIGURES, RUN_FIGURES, RUN_TABLES, TABLES
from service.api.views.registry import Parameters, Table
from service.api.views.settled import settled
from service.errors import NotFound
from service.ids import new_id
from service.jobs.planning import plan
from service.schemas.overview import RunView
from service.schemas.requests import CreateAnalysis
from service.schemas.responses import AnalysisOut, JobOut
from service.schemas.view import ResponseView, View
from service.store.export import export
from service.store.lens import Lens
from web.figures.theme import theme_of

__all__ = ["router"]

router = APIRouter(tags=["analyses"])

Format = Literal["json", "csv", "arrow", "parquet"]
Limit = Annotated[int, Query(ge=1, le=100_000)]
Offset = Annotated[int, Query(ge=0)]
ThemeName = Literal["light", "dark"]


@router.post("/runs/{run}/analyses", status_code=202)
def create_analysis(run: str, body: CreateAnalysis, services: ServicesDep, response: Response) -> JobOut:
    """Ask for an analysis. What is scored already is not scored again."""
    row = services.store.runs.get(run)
    dtype = services.scorer.worker()["dtype"] if body.dtype is None else body.dtype
    planned = plan(services.store, row, body, dtype)
    services.store.analyses.add(planned.analysis, planned.steps)
    job = services.jobs.submit(
        "analysis", row["run_id"], run, {"analysis": planned.analysis["analysis"], "given_pair": body.old is not None}
    )
    response.headers["Location"] = f"/api/v1/jobs/{job.job}"
    return job_out(job)


@router.get("/runs/{run}/analyses")
def list_analyses(run: str, services: ServicesDep) -> list[AnalysisOut]:
    """A run's analyses, newest first."""
    rows = services.store.analyses.of_run(services.store.runs.get(run)["run_id"])
    return [AnalysisOut.of(row) for row in rows]


@router.get("/analyses/{analysis}")
def get_analysis(analysis: str, services: ServicesDep) -> AnalysisOut:
    """One analysis with its steps."""
    row = services.store.analyses.get(analysis)
    return AnalysisOut.of(row, services.store.analyses.steps(analysis))


@router.post("/analyses/{analysis}/measure", status_code=202)
def measure_analysis(analysis: str, services: ServicesDep, response: Response) -> JobOut:
    """Measure what this version's methods decide, where an older one measured the analysis. Nothing is scored again."""
    row = services.store.analyses.get(analysis)
    job = services.jobs.submit("analysis", row["run_id"], row["run"], {"analysis": analysis, "measure": True})
    response.headers["Location"] = f"/api/v1/jobs/{job.job}"
    return job_out(job)


@router.delete("/analyses/{analysis}", status_code=204)
def delete_analysis(analysis: str, services: ServicesDep) -> None:
    """Delete an analysis, and the scorings that no other analysis uses."""
    row = services.store.analyses.get(analysis)
    for job in services.jobs.active():
        if job.request.get("analysis") == analysis:
            services.jobs.cancel_run(row["run_id"])
    services.store.analyses.delete(analysis)
    services.store.lens.publish()


@router.get("/analyses/{analysis}/tables/{name}")
def get_table(
    analysis: str,
    name: str,
    services: ServicesDep,
    request: Request,
    format: Format | Literal["sql"] = "json",  # noqa: A002
    limit: Limit = 1000,
    offset: Offset = 0,
) -> Response:
    """A table of an analysis under a view, or the SQL that gives it on `lens.duckdb`. An unknown name is answered with
    the known ones."""
    if name not in TABLES:
        raise NotFound(f"there is no table {name!r}; there are {', '.join(TABLES)}")
    lens, row, table = services.store.lens, services.store.analyses.get(analysis), TABLES[name]
    view = table.view.of(request.query_params, besides={"format", "limit", "offset"})
    parameters = {**settled(lens, view.parameters(row)), "limit": limit, "offset": offset}
    return _rows(table, lens, parameters, format, f"{analysis}-{name}")


@router.get("/runs/{run}/tables/{name}")
def get_run_table(
    run: str,
    name: str,
    services: ServicesDep,
    request: Request,
    format: Format | Literal["sql"] = "json",  # noqa: A002
) -> Response:
    """A table over a run's steps: what was logged, and what `analysis` found if one is given.
    `methods`: whose mask rates."""
    if name not in RUN_TABLES:
        raise NotFound(f"there is no table {name!r} of a run; there are {', '.join(RUN_TABLES)}")
    services.store.runs.get(run)
    parameters = RunView.of(request.query_params, besides={"format"}).parameters(run)
    return _rows(RUN_TABLES[name], services.store.lens, parameters, format, f"{run}-{name}")


def _rows(table: Table, lens: Lens, parameters: Parameters, kind: Format | Literal["sql"], name: str) -> Response:
    """A table's rows, or the statement that gives them."""
    if kind == "sql":
        headers = {"Content-Disposition": f'attachment; filename="{name}.sql"'}
        return Response(table.sql(lens, parameters), media_type="application/sql", headers=headers)
    return encode(table.rows(lens, parameters), kind, name)


@router.get("/analyses/{analysis}/rollouts")
def get_rollouts(
    analysis: str, services: ServicesDep, request: Request, limit: Limit = 100, offset: Offset = 0
) -> Response:
    """The responses of an analysis, most disagreement first."""
    row = services.store.analyses.get(analysis)
    lens, view = services.store.lens, View.of(request.query_params, besides={"limit", "offset"})
    parameters = {**settled(lens, view.parameters(row)), "limit": limit, "offset": offset}
    return encode(lens.table("rollouts", parameters), "json", "")


@router.get("/analyses/{analysis}/tokens")
def get_tokens(
    analysis: str,
    services: ServicesDep,
    request: Request,
    format: Format = "json",  # noqa: A002
) -> Response:
    """Every response token of one rollout under a view; masked tokens have nulls. Needs `step` and `sample_id`."""
    row = services.store.analyses.get(analysis)
    view = ResponseView.of(request.query_params, besides={"format"})
    table = services.store.lens.table("tokens", view.parameters(row))
    if table.num_rows == 0:
        raise NotFound(f"analysis {analysis} has no sample {view.sample_id!r} in step {view.step}")
    return encode(table, format, f"{analysis}-tokens")


@router.get("/analyses/{analysis}/figures/{name}")
def get_figure(
    analysis: str, name: str, services: ServicesDep, request: Request, theme: ThemeName = "light"
) -> Response:
    """A figure of an analysis under a view, as Plotly JSON. `strip` needs step and sample_id."""
    if name not in FIGURES:
        raise NotFound(f"there is no figure {name!r}; there are {', '.join(FIGURES)}")
    lens, row, figure = services.store.lens, services.store.analyses.get(analysis), FIGURES[name]
    parameters = settled(lens, figure.view.of(request.query_params, besides={"theme"}).parameters(row))
    drawn = figure.draw(lens, parameters, theme_of(theme))
    return Response(drawn.to_json(), media_type="application/json")


@router.get("/runs/{run}/figures/{name}")
def get_run_figure(
    run: str, name: str, services: ServicesDep, request: Request, theme: ThemeName = "light"
) -> Response:
    """A figure over a run's steps, as Plotly JSON: what was logged, and what `analysis` found if one is given.
    `methods`: whose mask rates."""
    if name not in RUN_FIGURES:
        raise NotFound(f"there is no figure {name!r}; there are {', '.join(RUN_FIGURES)}")
    services.store.runs.get(run)
    parameters = RunView.of(request.query_params, besides={"theme"}).parameters(run)
    drawn = RUN_FIGURES[name].draw(services.store.lens, parameters, theme_of(theme))
    return Response(drawn.to_json(), media_type="application/json")


@router.get("/analyses/{analysis}/database")
def get_database(analysis: str, services: ServicesDep) -> FileResponse:
    """The analysis as one native DuckDB file."""
    row = services.store.analyses.get(analysis)
    out = services.store.layout.work / f"{new_id('d')}.duckdb"
    export(services.store.layout.lens, analysis, out)
    return FileResponse(
        out,
        media_type="application/vnd.duckdb",
        filename=f"{row['run']}-{analysis}.duckdb",
        background=BackgroundTask(out.unlink),
    )


def encode(table: pa.Table, kind: Format, name: str) -> Response:
    """An Arrow table as JSON records, CSV, an Arrow stream or Parquet."""
    if kind == "json":
        return CleanJSON(table.to_pylist())
    buffer = BytesIO()
    if kind == "csv":
        pyarrow.csv.write_csv(table, buffer)
        media, suffix = "text/csv", "csv"
    elif kind == "arrow":
        with pa.ipc.new_stream(buffer, table.schema) as writer:
            writer.write_table(table)
        media, suffix = "application/vnd.apache.arrow.stream", "arrows"
    else:
        pyarrow.parquet.write_table(table, buffer)
        media, suffix = "application/vnd.apache.parquet", "parquet"
    headers = {"Content-Disposition": f'attachment; filename="{Path(name).name}.{suffix}"'}
    return Response(buffer.getvalue(), media_type=media, headers=headers)
