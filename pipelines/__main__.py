"""`factotum`: every verb of the house. Results go to stdout (as JSON with --json), progress to stderr.
Long, because the table of contents of the whole house stands in one place; each verb only calls the file that does it.

Exit codes: 0 done; 1 an unexpected failure; 2 the command line is wrong; 3 refused (data, configuration or state, the message
says what and where); 4 the gate did not let a version through; 5 somebody else is at work, or a port is taken; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

import configs
from configs.deployment import Deployment
from pipelines import accounts, dead_letters
from pipelines.database import db
from pipelines.options import HOME, AsJson, DataDir, DeploymentFile, DomainName, DryRun, HomeDir, Quiet
from pipelines.routes import routes
from pipelines.steps import Reporter

application = typer.Typer(
    help="Factotum: what should this person see next, in which order, and why?\n\n"
    "Start with `factotum up anime`: it makes a sample, trains, and serves on http://127.0.0.1:8000. With --data DIR the same "
    "happens on your own files. `factotum run` alone trains and publishes; `factotum serve` alone answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

application.add_typer(db, name="db")

application.add_typer(accounts.users, name="users")
application.add_typer(accounts.keys, name="keys")
application.add_typer(dead_letters.letters, name="dead-letters")
application.add_typer(dead_letters.events, name="events")
application.add_typer(routes, name="routes")


@dataclass(frozen=True)
class Session:
    """What every command has at hand."""

    home: Path
    deployment: Deployment
    reporter: Reporter
    quiet: bool
    as_json: bool

    def tell(self, result: Mapping[str, Any], lines: Callable[[], list[str]] | None = None) -> None:
        if self.as_json:
            print(json.dumps(result, ensure_ascii=False, indent=1, default=str))
        else:
            print("\n".join(lines() if lines is not None else [f"{key}: {value}" for key, value in result.items()]))


def _session(home: Path, deployment: Path | None, quiet: bool, as_json: bool) -> Session:
    words = configs.load_deployment(deployment) if deployment else Deployment()
    return Session(home.resolve(), words, Reporter(quiet, as_json), quiet, as_json)


def _adopted(session: Session, domain: str) -> None:
    """Says which settings are not those of the YAML."""
    for model, entry in configs.adopted(domain).items():
        words = ", ".join(f"{word} {value}" for word, value in entry.words.items())
        session.reporter.say(f"{model}: {words} (adopted {entry.at[:10]} from {entry.search}; `factotum adopt` can take it back)")


# ------------------------------------------------------------------ the steps


@application.command()
def run(
    domain: DomainName,
    data: DataDir = None,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Everything from raw files to a champion: ingest, featurize, train, evaluate, publish.

    A step whose inputs did not change is not done again; an interrupted one goes on with what it had."""
    from pipelines.run import run as run_all

    session, words = _session(home, deployment, quiet, as_json), configs.load(domain)
    _adopted(session, domain)
    version = run_all(words, data, session.home, session.deployment, session.reporter)
    session.tell({"domain": words.name, "version": version})


@application.command()
def ingest(
    domain: DomainName,
    data: DataDir = None,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Raw files -> canonical tables. Bad rows go to quarantine with file, line and reason."""
    from pipelines.run import tables_of

    session, words = _session(home, deployment, quiet, as_json), configs.load(domain)
    directory, _ = tables_of(words, data, session.home, session.deployment, session.reporter)
    session.tell({"tables": str(directory), "report": json.loads((directory / "report.json").read_text(encoding="utf-8"))})


@application.command()
def featurize(domain: DomainName, home: HomeDir = HOME, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """The newest tables -> vocabulary, catalogue and histories as arrays."""
    from pipelines.featurize import featurize as make_features
    from pipelines.run import newest

    session, words = _session(home, None, quiet, as_json), configs.load(domain)
    session.tell({"features": str(make_features(words, newest(session.home, words.name, "ingest"), session.home, session.reporter))})


@application.command()
def train(domain: DomainName, home: HomeDir = HOME, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """The newest features -> fitted sources and ranker."""
    from pipelines.run import newest
    from pipelines.train import train as fit

    session, words = _session(home, None, quiet, as_json), configs.load(domain)
    _adopted(session, domain)
    session.tell({"training": str(fit(words, newest(session.home, words.name, "featurize"), session.home, session.reporter))})


@application.command()
def evaluate(domain: DomainName, home: HomeDir = HOME, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """The newest training, measured on the held-out window by the serving engine itself."""
    from pipelines.evaluate import evaluate as measure
    from pipelines.evaluate import read_report, table
    from pipelines.run import newest

    session, words = _session(home, None, quiet, as_json), configs.load(domain)
    report = read_report(measure(words, newest(session.home, words.name, "train"), session.home, session.reporter))
    session.tell(report, lambda: table(report))


@application.command()
def publish(
    domain: DomainName,
    home: HomeDir = HOME,
    promote: Annotated[bool, typer.Option(help="make it the champion if the gate passed it")] = True,
    deployment: DeploymentFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """The newest evaluated training -> a bundle, and the champion's place for it if the gate passed it."""
    from pipelines.publish import publish as make_bundle
    from pipelines.run import events_through, newest

    session, words = _session(home, deployment, quiet, as_json), configs.load(domain)
    evaluated = newest(session.home, words.name, "evaluate")
    through = events_through(session.home, words.name, evaluated)
    version = make_bundle(words, evaluated, session.home, session.reporter, through, promote, session.deployment.storage.url)
    session.tell({"domain": words.name, "version": version})


# ------------------------------------------------------------------ answering


@application.command()
def serve(
    domains: Annotated[
        list[str] | None, typer.Argument(help="domains to answer for; none: all that have a champion", metavar="[DOMAIN]...")
    ] = None,
    home: HomeDir = HOME,
    host: Annotated[str | None, typer.Option(help="address to listen on (default 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on (default 8000)", min=1, max=65_535)] = None,
    deployment: DeploymentFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Answers over HTTP until Ctrl-C, which drains and ends everything that was started."""
    from training import bundle

    session = _listening(_session(home, deployment, quiet, as_json), host, port)
    names = [_called(name) for name in domains or ()]
    if not names:
        names = [name for name in configs.names() if bundle.alias(session.home, name, "champion")]
        if not names:
            raise FileNotFoundError(
                f"no domain has a champion in {session.home}: `factotum run DOMAIN` makes one, `factotum up DOMAIN` does both"
            )
    _serve(session, names)


@application.command()
def up(
    domain: DomainName,
    data: DataDir = None,
    home: HomeDir = HOME,
    host: Annotated[str | None, typer.Option(help="address to listen on (default 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on (default 8000)", min=1, max=65_535)] = None,
    deployment: DeploymentFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """`run` if these data have no champion yet, then `serve`."""
    from pipelines.publish import NotPromotedError
    from pipelines.run import run as run_all
    from pipelines.serve import port_free
    from pipelines.steps import files_state, fingerprint, write_json
    from training import bundle

    session, words = _listening(_session(home, deployment, quiet, as_json), host, port), configs.load(domain)
    port_free(session.deployment.http.host, session.deployment.http.port)  # before minutes of training, not after
    files = sorted(path for path in data.iterdir() if path.is_file()) if data else []
    mark = fingerprint(words.model_dump(mode="json"), str(data.resolve()) if data else None, files_state(files))
    remembered = session.home / words.name / "up.json"
    known = json.loads(remembered.read_text(encoding="utf-8")).get("mark") if remembered.is_file() else None
    if known == mark and bundle.alias(session.home, words.name, "champion"):
        session.reporter.say(f"{words.name}: the champion was made of these data; nothing is trained again (`factotum run` does that)")
    else:
        try:
            run_all(words, data, session.home, session.deployment, session.reporter)
            write_json(remembered, {"mark": mark})
        except NotPromotedError as refused:
            if bundle.alias(session.home, words.name, "champion") is None:
                raise
            session.reporter.say(f"{refused}; the champion of before is served")
    _serve(session, [_called(domain)])


def _called(domain: str) -> str:
    """What other processes may call a domain: its name, or the whole path of its YAML. Raises ConfigError if it cannot be used."""
    configs.load(domain)
    return str(Path(domain).resolve()) if domain.endswith((".yaml", ".yml")) else domain


def _listening(session: Session, host: str | None, port: int | None) -> Session:
    from serving import counting

    changes = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    http = session.deployment.http.model_copy(update=changes)
    counting.check(session.home, session.deployment)  # a deployment that cannot be served is refused before anything starts
    return replace(session, deployment=session.deployment.model_copy(update={"http": http}))


def _serve(session: Session, names: list[str]) -> None:
    from pipelines.database import refuse_unknown
    from pipelines.serve import become

    refuse_unknown(session.home, session.deployment)
    session.reporter.close()
    become(session.home, names, session.deployment, session.quiet, session.as_json)


@application.command()
def audit(
    person: Annotated[str | None, typer.Option(help="who called: an account's id or a domain's user id; its hash is searched for")] = None,
    about: Annotated[str | None, typer.Option(help="who was asked about: the same")] = None,
    since: Annotated[str | None, typer.Option(help="from this moment on: 2026-01-31 or 2026-01-31T20:15:00Z")] = None,
    until: Annotated[str | None, typer.Option(help="up to this moment")] = None,
    event: Annotated[str | None, typer.Option(help="READ, CREATE, UPDATE, DELETE, LOGIN, REFUSED or ERROR")] = None,
    endpoint: Annotated[str | None, typer.Option(help="a route as the OpenAPI document spells it: /v1/{domain}/events")] = None,
    status: Annotated[int | None, typer.Option(help="of the answer", min=100, max=599)] = None,
    most: Annotated[int, typer.Option(help="entries", min=1, max=100_000)] = 100,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    as_json: AsJson = False,
) -> None:
    """Who asked for what, newest first. People stand there as hashes, and what they asked is not kept."""
    from pipelines.audit import Wanted, search, table

    session = _session(home, deployment, True, as_json)
    found = search(session.home, session.deployment, Wanted(person, about, since, until, event, endpoint, status, most))
    session.tell({"entries": found}, lambda: table(found))


@application.command()
def score(
    domain: DomainName,
    out: Annotated[
        Path | None, typer.Option("--out", help="folder for the Parquet files (default: where serving falls back to)", file_okay=False)
    ] = None,
    k: Annotated[int | None, typer.Option(help="items a user (default: the YAML's)", min=1, max=1_000)] = None,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Everybody's slate ahead of time, by the champion: Parquet partitioned by date. A killed run goes on where it was."""
    from pipelines.score import score as score_all

    session, words = _session(home, deployment, quiet, as_json), configs.load(domain)
    session.tell(
        score_all(words, session.home, (out or session.home / words.name / "scored").resolve(), session.deployment, session.reporter, k)
    )


@application.command()
def seats(
    domain: DomainName,
    data: DataDir = None,
    as_of: Annotated[str | None, typer.Option(help="count tickets sold until then: 2026-01-31T20:15:00+05:00 (default: now)")] = None,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Reads the number of free seats from the source again; every replica of a running application sees what changed."""
    from pipelines.seats import refresh
    from pipelines.sources.rows import moment

    session, words = _session(home, deployment, quiet, as_json), configs.load(domain)
    until = moment({"--as-of": as_of}, "--as-of") if as_of is not None else None
    session.tell(refresh(words, data, session.home, session.deployment, session.reporter, until, dry_run))


# ------------------------------------------------------------------ versions


@application.command()
def models(domain: DomainName, home: HomeDir = HOME, as_json: AsJson = False) -> None:
    """Versions of a domain, oldest first: what each serves, how good it was, and which aliases point at it."""
    from training import bundle

    session, words = _session(home, None, True, as_json), configs.load(domain)
    aliases = {name: bundle.alias(session.home, words.name, name) for name in get_args(bundle.Alias)}
    rows: list[dict[str, Any]] = []
    for version in bundle.versions(session.home, words.name):
        manifest = bundle.read_manifest(bundle.bundles_dir(session.home, words.name) / version)
        rows.append(
            {
                "version": version,
                "aliases": [name for name, pointed in aliases.items() if pointed == version],
                "created": manifest.created,
                "serves": manifest.verdict.serve,
                "passed": manifest.verdict.passed,
                "ndcg@10": manifest.metrics,
                "why": manifest.verdict.why,
            }
        )

    def lines() -> list[str]:
        return [
            f"{row['version']}  {','.join(row['aliases']) or '-':10}  serves {row['serves']:12}  "
            + "  ".join(f"{name} {value:.4f}" for name, value in row["ndcg@10"].items())
            for row in rows
        ] or [f"{words.name} has no versions yet: `factotum run {words.name}` makes one"]

    session.tell({"domain": words.name, "versions": rows}, lines)


@application.command()
def promote(
    domain: DomainName,
    version: Annotated[str | None, typer.Argument(help="default: the newest")] = None,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Makes a version the champion if the gate passed it and every file is whole; a running application takes it over by itself."""
    from pipelines.publish import promote as make_champion

    session, words = _session(home, deployment, quiet, as_json), configs.load(domain)
    manifest = make_champion(session.home, words.name, version, session.reporter, dry_run, session.deployment.storage.url)
    session.tell({"domain": words.name, "version": manifest.version, "dry_run": dry_run, "verdict": manifest.verdict.why})


@application.command()
def rollback(
    domain: DomainName,
    version: Annotated[str | None, typer.Argument(help="default: the champion before")] = None,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Goes back to the champion before, or to a version that is named."""
    from pipelines.publish import rollback as go_back

    session, words = _session(home, deployment, quiet, as_json), configs.load(domain)
    back = go_back(session.home, words.name, version, session.reporter, dry_run, session.deployment.storage.url)
    session.tell({"domain": words.name, "version": back, "dry_run": dry_run})


@application.command()
def clean(domain: DomainName, home: HomeDir = HOME, dry_run: DryRun = False, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """What old versions, runs and scores take of the disk, what is kept and why, and away with the rest."""
    from pipelines.clean import clean as sweep

    session, words = _session(home, None, quiet, as_json), configs.load(domain)
    pieces, freed = sweep(session.home, words, session.reporter, dry_run)
    rows = [{"what": p.what, "name": p.path.name, "bytes": p.size, "kept": p.kept} for p in pieces]

    def lines() -> list[str]:
        told = [f"{row['what']:10} {row['bytes'] / 2**20:9.1f} MiB  {row['name']}: {row['kept'] or 'goes'}" for row in rows]  # type: ignore[operator]
        return [*told, f"{'would free' if dry_run else 'freed'} {freed / 2**20:.1f} MiB"]

    session.tell({"domain": words.name, "pieces": rows, "freed": freed, "dry_run": dry_run}, lines)


# ------------------------------------------------------------------ search, times, figures


@application.command()
def tune(
    domain: DomainName,
    model: Annotated[str, typer.Option("--model", help="a source of the YAML, or ranker")],
    samples: Annotated[int, typer.Option("--samples", help="trials", min=1)] = 20,
    resume: Annotated[bool, typer.Option("--resume", help="go on with an interrupted search")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="of the models and of what is tried next (default: the split's)")] = None,
    home: HomeDir = HOME,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Searches a source's settings as the YAML's `search` says (Ray Tune, ASHA, Optuna), on the label window.

    The configuration is not changed: `factotum adopt` does that. The trials are sent to MLflow where MLFLOW_TRACKING_URI is set."""
    from pipelines.run import newest
    from pipelines.steps import latest
    from pipelines.tune import lines
    from pipelines.tune import tune as search

    session, words = _session(home, None, quiet, as_json), configs.load(domain)
    features = newest(session.home, words.name, "featurize")
    trained = newest(session.home, words.name, "train") if model == "ranker" else latest(session.home, words.name, "train")
    result = search(words, features, trained, model, samples, session.home, resume, session.reporter, seed)
    session.tell(result, lambda: lines(result))


@application.command()
def adopt(
    domain: DomainName,
    model: Annotated[str, typer.Option("--model", help="a source of the YAML, or ranker")],
    trial: Annotated[int | None, typer.Option("--trial", help="this one (default: the best that came to its end)")] = None,
    back: Annotated[bool, typer.Option("--undo", help="take back what was adopted for the model")] = False,
    dry_run: DryRun = False,
    home: HomeDir = HOME,
    as_json: AsJson = False,
) -> None:
    """Puts the best trial of the newest search in the place of the model's settings: in DOMAIN.adopted.yaml, beside the YAML.

    Every later command reads both. The YAML is not written; --undo, or deleting that file, brings its settings back."""
    from pipelines.adopt import adopt as take
    from pipelines.adopt import undo

    session = _session(home, None, True, as_json)
    session.tell(undo(domain, model, dry_run) if back else take(domain, model, session.home, trial, dry_run))


@application.command()
def schedule(
    domains: Annotated[list[str] | None, typer.Argument(help="default: every domain", metavar="[DOMAIN]...")] = None,
    data: DataDir = None,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    show: Annotated[bool, typer.Option("--show", help="only say what runs when")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Runs the YAML's jobs at their times (UTC) until Ctrl-C."""
    from pipelines.schedule import Schedule, upcoming

    session = _session(home, deployment, quiet, as_json)
    words = {_called(name): configs.load(name) for name in domains or configs.names()}
    if show:
        coming = upcoming(list(words.values()), datetime.now(UTC))
        rows = [{"at": when.isoformat(), "domain": name, "job": job} for when, name, job in coming]
        session.tell({"jobs": rows}, lambda: [f"{row['at']}  {row['domain']}.{row['job']}" for row in rows])
        return
    Schedule(words, data, session.home, session.reporter, deployment).run()


@application.command()
def bench(
    name: Annotated[str, typer.Argument(help="quality, train, routes, serve, batch, ingest, gateway, faults or soak")],
    named: Annotated[str | None, typer.Argument(help="the domain, as a second word", metavar="[DOMAIN]")] = None,
    domain: Annotated[str | None, typer.Option(help="domain whose champion is measured (default: the first that ships)")] = None,
    data: DataDir = None,
    part: Annotated[list[str] | None, typer.Option("--part", help="only this part (quality; may be given again)")] = None,
    validation: Annotated[bool, typer.Option("--validation", help="one window earlier: the test column stays unread (quality)")] = False,
    rows: Annotated[int, typer.Option(help="rows of the generated file (ingest)", min=1_000)] = 20_000_000,
    requests: Annotated[int, typer.Option(help="how many are sent (soak)", min=1_000)] = 100_000,
    rate: Annotated[float | None, typer.Option(help="requests a second (faults: 50, soak: 250)", min=1.0)] = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="faults and soak without PostgreSQL, Redis and a broker")] = False,
    big: Annotated[bool, typer.Option("--big", help="a day of a hundred million routes, by the command itself (routes)")] = False,
    home: HomeDir = HOME,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measures speed, memory and what happens when a part fails, on this machine, and writes the machine beside the figures."""
    from pipelines.bench import bench as measure
    from pipelines.bench import lines

    session = _session(home, None, quiet, as_json)
    words = configs.load(named or domain or configs.names()[0])
    if name == "quality":
        from pipelines.bench_quality import lines as quality_lines
        from pipelines.bench_quality import run as measure_quality

        quality = measure_quality(words, data, session.home, session.reporter, part or (), validation)
        session.tell(quality, lambda: quality_lines(quality))
        return
    name = "routes-big" if big and name == "routes" else name
    figures = measure(name, words, rows, session.home, session.deployment, session.reporter, embedded, requests, rate, data)
    shown = lines(name, figures)
    session.tell(figures, None if shown is None else lambda: shown)


@application.command()
def report(
    to: Annotated[Path | None, typer.Option("--to", help="the page (default: report.html of the home)", dir_okay=False)] = None,
    text: Annotated[Path | None, typer.Option("--markdown", help="also as Markdown, such as docs/benchmarks.md", dir_okay=False)] = None,
    home: HomeDir = HOME,
    as_json: AsJson = False,
) -> None:
    """One self-contained page from all benchmarks and searches of the home: tables, pictures, goals reached and not reached."""
    import time

    from pipelines.report import lines
    from pipelines.report import report as write

    session = _session(home, None, True, as_json)
    result = write(session.home, to or session.home / "report.html", text, time.time())
    session.tell(result, lambda: lines(result))


def main() -> None:
    """The entry point: turns what was refused into one line and an exit code."""
    try:
        application(standalone_mode=False)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: what was finished is kept, the same command goes on from there", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        from pipelines.refusals import exit_code

        code = exit_code(error)
        if code == 1 and os.environ.get("FACTOTUM_DEBUG"):
            raise
        if code == 2:
            error.show()  # type: ignore[attr-defined]
        else:
            print(f"factotum: {error if code != 1 else f'{type(error).__name__}: {error} (FACTOTUM_DEBUG=1 shows where)'}", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
