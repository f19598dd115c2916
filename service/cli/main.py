"""`dppo`: the command line. Everything but `serve`, `demo` and `doctor` talks to a running service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from service.cli.lab import app as lab
from service.cli.output import Output, fail, session
from service.schemas.findings import sentence

__all__ = ["app", "main"]

app = typer.Typer(
    name="dppo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="See, token by token, where PPO clipping and DPPO disagree in your LLM-RL run.\n\n"
    "First minute: `dppo demo`. Then: `dppo serve` in one terminal, and in another `dppo upload RUN FILE`, "
    "`dppo checkpoint RUN --step N PATH`, `dppo analyze RUN --wait`.",
)

app.add_typer(lab, name="lab")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Server = Annotated[str, typer.Option("--server", envvar="DPPO_SERVER_URL", help="Address of the service.")]
HERE = "http://127.0.0.1:8000"


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 0 for a free one [default: 8000].")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept [default: ./data].")] = None,
    unsafe_no_auth: Annotated[bool, typer.Option(help="Bind another address without DPPO_TOKEN.")] = False,
    as_json: Json = False,
) -> None:
    """Run the service on one data directory. Settings: flag > DPPO_* environment > default."""
    from service.cli.local import serve_command

    serve_command(Output(as_json), host=host, port=port, data_dir=data_dir, unsafe_no_auth=unsafe_no_auth)


@app.command()
def demo(
    exit_: Annotated[bool, typer.Option("--exit", help="Stop after the analysis instead of serving.")] = False,
    data_dir: Annotated[Path, typer.Option(help="Where the demo keeps its data.")] = Path("data/demo"),
    port: Annotated[int | None, typer.Option(help="Port [default: 8000, or a free one where that is taken].")] = None,
    as_json: Json = False,
) -> None:
    """Show two small trainings at once; then score a real run of a real pretrained model (SmolLM2-135M, 5 RL steps),
    which takes a few minutes, and show it."""
    from service.cli.demo import demo_command

    demo_command(Output(as_json), data_dir=data_dir, port=port, leave=exit_)


@app.command()
def upload(
    run: Annotated[str, typer.Argument(help="Run name; created if there is none.")],
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Rollout files.")],
    format: Annotated[  # noqa: A002
        str, typer.Option(help="auto: by content; or native, nemo-rl, prime-rl, verl, trl, …")
    ] = "auto",
    step: Annotated[
        int | None, typer.Option(help="Step of records that do not say theirs [default: N of train_data_stepN.jsonl].")
    ] = None,
    replace: Annotated[Literal["step"] | None, typer.Option(help="Replace the steps that the file holds.")] = None,
    temperature: Annotated[float | None, typer.Option(help="New run: sampling temperature [default: 1].")] = None,
    top_p: Annotated[float | None, typer.Option(help="New run: nucleus mass.")] = None,
    top_k: Annotated[int | None, typer.Option(help="New run: top-k truncation.")] = None,
    logprobs_mode: Annotated[
        Literal["raw", "processed"] | None,
        typer.Option(help="New run: whether logged log-probs are before (raw) or after (processed) temperature."),
    ] = None,
    framework: Annotated[str | None, typer.Option(help="New run: the trainer.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="New run: tokenizer directory inside the roots.")] = None,
    server: Server = HERE,
    as_json: Json = False,
) -> None:
    """Upload rollout logs: NDJSON, .gz, .zst or Parquet. A bad file is refused as a whole, with line and field."""
    output = Output(as_json)
    with session(output, server) as client:
        sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "logprobs_mode": logprobs_mode}
        given = {name: value for name, value in sampling.items() if value is not None}
        if all(known["run"] != run for known in client.runs()):
            client.create_run(
                run, sampling=given, framework=framework, tokenizer=str(tokenizer.resolve()) if tokenizer else None
            )
        elif given or framework or tokenizer:
            output.note(f"run {run!r} exists: its sampling, framework and tokenizer stay as they are")
        results = []
        for file in files:
            if _annotated(file):
                output.note(f"note: {file.name} has annotations beside it, which dppo convert prime-rl joins to it")
            with output.progress(f"sending {file.name}") as update:
                of_file = _step_in_name(file) if step is None else step
                job = client.upload(run, file, update, format=format, step=of_file, replace=replace)
            with output.progress(f"checking {file.name}") as update:
                done = client.wait(
                    job,
                    lambda at, update=update: update(  # type: ignore[misc]
                        at["progress"]["tokens_done"], at["progress"]["tokens_total"]
                    ),
                )
            results.append(done["result"])
            output.say(f"{file.name}: {done['result']['rollouts']} rollouts (upload {done['result']['upload']})")
            for level in ("warning", "note"):
                for finding in done["result"][f"{level}s"]:
                    output.note(f"{level}: {sentence(finding)}")
        output.result(results)


def _annotated(file: Path) -> bool:
    """Whether prime-rl's annotations lie beside a stream, which is `stream.jsonl` or one of the files in `stream/`."""
    folder = file.resolve().parent
    stream = folder if file.stem.startswith("stream") else folder.parent if folder.name == "stream" else None
    return stream is not None and (stream / "annotations").is_dir()


def _step_in_name(file: Path) -> int | None:
    """NeMo-RL's files say their step in the name alone."""
    found = re.match(r"train_data_step(\d+)\.", file.name)
    return int(found[1]) if found else None


@app.command()
def convert(
    format: Annotated[str, typer.Argument(help="auto, prime-rl, slime, miles, skyrl, verl or roll.")],  # noqa: A002
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Dumps of one trainer.")],
    out: Annotated[Path, typer.Option("-o", "--out", dir_okay=False, help="File to write: .jsonl or .jsonl.gz.")],
    step: Annotated[int | None, typer.Option(min=0, help="Step of dumps that do not say theirs.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
    as_json: Json = False,
) -> None:
    """Join what a trainer wrote into several files (prime-rl's traces and annotations; slime, miles) for `dppo upload`.

    Torch dumps need torch here; no pickle is ever run.
    """
    from service.cli.convert import FORMATS, convert_command

    output = Output(as_json)
    if format not in FORMATS:
        fail(output, f"there is no format {format!r} to convert; the formats are {', '.join(FORMATS)}")
    convert_command(output, format, files, out, step, force)


@app.command()
def checkpoint(
    run: Annotated[str, typer.Argument(help="Run name.")],
    path: Annotated[str, typer.Argument(help="Hugging Face directory (safetensors), or org/name@revision.")],
    step: Annotated[int | None, typer.Option(help="It is the policy before this step.")] = None,
    after: Annotated[
        int | None, typer.Option(help="It is the policy after this step, as trainers name theirs.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="LoRA adapter directory on it.")] = None,
    label: Annotated[str | None, typer.Option(help="Free text.")] = None,
    server: Server = HERE,
    as_json: Json = False,
) -> None:
    """Register a checkpoint. An analysis of step s compares the policies before step s and before step s+1."""
    output = Output(as_json)
    if (step is None) == (after is None):
        fail(output, "give either --step N (the policy before step N) or --after N (the policy after it)")
    place = str(Path(path).resolve()) if Path(path).exists() or "@" not in path else path
    with session(output, server) as client:
        row = client.add_checkpoint(
            run,
            step if step is not None else (after or 0) + 1,
            place,
            str(adapter.resolve()) if adapter else None,
            label,
        )
        for warning in row["warnings"]:
            output.note(f"warning: {warning}")
        output.result(row, f"checkpoint {row['checkpoint']}: the policy before step {row['step']}")


@app.command()
def analyze(
    run: Annotated[str, typer.Argument(help="Run name.")],
    step: Annotated[
        list[int] | None, typer.Option(help="Step to analyse; repeat for more [default: all with a pair].")
    ] = None,
    old: Annotated[str | None, typer.Option(help="Checkpoint id of OLD; with one step.")] = None,
    new: Annotated[str | None, typer.Option(help="Checkpoint id of NEW; with one step.")] = None,
    anchor: Annotated[
        Literal["rollout", "old"] | None, typer.Option(help="Policy that masks are measured from.")
    ] = None,
    evaluated_at: Annotated[
        Literal["start", "end", "logged"] | None, typer.Option(help="Policy that is measured.")
    ] = None,
    source: Annotated[
        Literal["scored", "logged"] | None,
        typer.Option(help="scored by our models, or logged: as the trainer did [default: logged without checkpoints]."),
    ] = None,
    top_k: Annotated[int, typer.Option(help="K of the top-K divergences.")] = 20,
    topk_mode: Annotated[Literal["paper", "slots"], typer.Option(help="K or K+1 tokens, or exactly K.")] = "paper",
    dtype: Annotated[Literal["float32", "bfloat16"] | None, typer.Option(help="Backbone; logits stay float32.")] = None,
    eps_low: float | None = None,
    eps_high: float | None = None,
    dual_clip: float | None = None,
    delta_tv: float | None = None,
    delta_kl: float | None = None,
    weight_cap: float | None = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result.")] = False,
    server: Server = HERE,
    as_json: Json = False,
) -> None:
    """Score a run's rollouts under the old and the new checkpoint and compute every mask.

    Without checkpoints the log's own log-probs are analysed: rollout → the trainer's π, or its π_old (NeMo-RL).
    """
    output = Output(as_json)
    thresholds = {
        "eps_low": eps_low,
        "eps_high": eps_high,
        "dual_clip": dual_clip,
        "delta_tv": delta_tv,
        "delta_kl": delta_kl,
        "weight_cap": weight_cap,
    }
    body: dict[str, Any] = {
        "steps": step or None,
        "old": old,
        "new": new,
        "anchor": anchor,
        "evaluated_at": evaluated_at,
        "source": source,
        "top_k": top_k,
        "topk_mode": topk_mode,
        "dtype": dtype,
        "thresholds": {name: value for name, value in thresholds.items() if value is not None},
    }
    with session(output, server) as client:
        if source is None and not client.checkpoints(run):
            body["source"] = "logged"
            output.note("no checkpoint is registered: analysing the log-probs as the trainer logged them")
        job = client.analyze(run, **{name: value for name, value in body.items() if value is not None})
        if not wait:
            output.result(job, f"job {job['id']}: {client.url}/runs/{run}")
            return
        with output.progress(f"scoring {run}") as update:
            job = client.wait(job, lambda at: update(at["progress"]["tokens_done"], at["progress"]["tokens_total"]))
        for warning in job["warnings"]:
            output.note(f"warning: {warning}")
        for note in job["result"]["notes"]:
            output.note(f"note: {note}")
        for skipped in job["result"]["skipped_steps"]:
            output.note(f"step {skipped['step']} was left out: {skipped['reason']}")
        analysis = job["result"]["analysis"]
        output.result(job, f"analysis {analysis}: {client.url}/analyses/{analysis}")


@app.command()
def export(
    analysis: Annotated[str, typer.Argument(help="Analysis id.")],
    file: Annotated[Path, typer.Argument(help="DuckDB file to write.", dir_okay=False)],
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
    server: Server = HERE,
    as_json: Json = False,
) -> None:
    """Write one analysis as a self-contained native DuckDB file: tokens, rollouts, step_summary, analyses."""
    output = Output(as_json)
    if file.exists() and not force:
        fail(output, f"{file} exists; choose another name or pass --force")
    with session(output, server) as client, output.progress(f"exporting {analysis}") as update:
        client.export(analysis, file, update)
    output.result({"file": str(file), "bytes": file.stat().st_size}, f"{file}: {file.stat().st_size:,} bytes")


@app.command()
def runs(server: Server = HERE, as_json: Json = False) -> None:
    """List the runs of a service."""
    output = Output(as_json)
    with session(output, server) as client:
        rows = client.runs()
        table = Table("run", "framework", box=None, pad_edge=False)
        for name in ("steps", "rollouts", "tokens", "checkpoints", "analyses"):
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(
                row["run"],
                row["framework"] or "–",
                *(f"{row[f'n_{name}']:,}" for name in ("steps", "rollouts", "tokens", "checkpoints", "analyses")),
            )
        output.result(rows, table if rows else "no runs yet: `dppo upload RUN FILE`, or `dppo demo`")


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT over runs, rollouts, analyses, tokens, step_summary, …")],
    to: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="Write a .csv, .parquet or .arrow file.")
    ] = None,
    server: Server = HERE,
    as_json: Json = False,
) -> None:
    """Run one SELECT and print up to 200 rows; --json prints all, --output writes all.

    Filter `tokens` by analysis: SELECT * FROM tokens WHERE analysis = '…' LIMIT 10.
    """
    from service.cli.sql import sql_command

    sql_command(Output(as_json), statement, to, server)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method with its parameters and variants.")] = None,
    analysis: Annotated[
        str | None, typer.Option(help="Show what each method would drop in this analysis (asks the service).")
    ] = None,
    server: Server = HERE,
    as_json: Json = False,
) -> None:
    """List the methods that decide which token keeps its gradient: rule, source, defaults, framework variants."""
    from service.cli.methods import methods_command

    methods_command(Output(as_json), name, analysis, server)


@app.command()
def doctor(server: Server = HERE, as_json: Json = False) -> None:
    """Say what is installed, which device the worker takes, and whether a service answers."""
    from service.cli.local import doctor_command

    doctor_command(Output(as_json), server)


def main() -> None:
    """The console entry point."""
    app()


if __name__ == "__main__":
    main()
