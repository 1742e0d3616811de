"""Runs of a search sent to MLflow, where MLFLOW_TRACKING_URI says that there is one (extra `mlflow`).

An experiment is a domain's model; a run is a trial: its words as parameters, its looks as the metric's steps. A trial that was sent
before is not sent again, so that a search that is gone on with adds only what is new.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

ADDRESS = "MLFLOW_TRACKING_URI"
_KEY = "factotum.trial"  # tag: the search's directory and the trial's number


def check() -> None:
    """Raises ValueError if runs are to be sent and the client is not installed: before the work, not after it."""
    if os.environ.get(ADDRESS) and find_spec("mlflow") is None:
        raise ValueError(f"{ADDRESS} is set, but MLflow's client is not installed: install the extra `mlflow`, or unset {ADDRESS}")


def send(result: Mapping[str, Any]) -> int:
    """How many runs were sent; 0 where no address is set. `result` is what `pipelines.tune.tune` returns.

    Raises ConnectionError if MLflow does not take them; trials.json stands already then, and `--resume` sends what is missing."""
    address = os.environ.get(ADDRESS)
    if not address:
        return 0
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    search = os.path.basename(result["directory"])
    try:
        client = MlflowClient(address)
        name = f"factotum/{result['domain']}/{result['model']}"
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known is not None else client.create_experiment(name)
        before = {
            run.data.tags.get(_KEY) for run in client.search_runs([experiment], f"tags.`factotum.search` = '{search}'", max_results=50_000)
        }
        sent = 0
        for trial in result["trials"]:
            key = f"{search}/{trial['trial']}"
            if key in before:
                continue
            tags = {
                _KEY: key,
                "factotum.search": search,
                "factotum.stopped": str(trial["stopped"]).lower(),
                "factotum.seed": str(result["seed"]),
                "mlflow.source.git.commit": result["commit"].rstrip("+"),
            }
            run = client.create_run(experiment, tags=tags, run_name=f"{result['model']}-{trial['trial']}")
            looks = [Metric(_named(result["metric"]), score, 0, step) for step, (_, score) in enumerate(trial["curve"], 1)]
            client.log_batch(
                run.info.run_id,
                metrics=[*looks, Metric("seconds", trial["seconds"], 0, 0)],
                params=[Param(word, str(value)) for word, value in {**result["now"], **trial["words"]}.items()],
                tags=[RunTag("error", trial["error"])] if trial["error"] else [],
            )
            client.set_terminated(run.info.run_id, "FAILED" if trial["error"] else "FINISHED")
            sent += 1
    except (MlflowException, OSError) as error:
        raise ConnectionError(f"{ADDRESS}={address}: {error}") from error
    return sent


def _named(metric: str) -> str:
    return metric.replace("@", "_at_")  # MLflow takes no @ in a name
