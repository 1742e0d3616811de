"""The files that other programs read: each is checked by that program's own rules where these can be had here."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import configs
from serving.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "configs" / "deploy"


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def test_ray_accepts_the_cluster_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(_yaml(ROOT / "cluster.yaml"))
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert types["cpu_worker"]["min_workers"] == 0 == types["gpu_worker"]["min_workers"]
    assert types["gpu_worker"]["resources"]["GPU"] >= 1
    assert all("RAY_AUTH_MODE=token" in command for command in prepared["head_start_ray_commands"][1:])


def test_serve_accepts_its_file_and_build_accepts_its_arguments() -> None:
    from ray.serve.schema import ServeDeploySchema

    from serving.app import Args

    kuberay = next(d for d in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8")) if d["kind"] == "RayService")
    for document in (_yaml(DEPLOY / "serve.yaml"), yaml.safe_load(kuberay["spec"]["serveConfigV2"])):
        schema = ServeDeploySchema.model_validate(document)
        args = Args.model_validate(schema.applications[0].args)
        assert args.names() == ("anime",)
        assert args.settings().replicas.layout == "spread"
        assert args.settings().environment == "production"
        assert args.settings().limits.store == "redis"


def test_the_deployment_for_a_cluster_is_made_of_known_words() -> None:
    deployment = configs.load_deployment(DEPLOY / "cluster-deployment.yaml")
    assert deployment.replicas.most_gateways == 8
    assert deployment.environment == "production"
    assert deployment.limits.store == "redis"


def _needed() -> dict[str, str]:
    """.env.example: what has to be set, and what stands there."""
    needed = (DEPLOY / ".env.example").read_text(encoding="utf-8").split("# --- if you want them")[0]
    return dict(line.split("=", 1) for line in needed.splitlines() if line and not line.startswith("#"))


def test_the_example_of_secrets_has_no_secret_and_names_all_that_compose_asks_for() -> None:
    text = (DEPLOY / ".env.example").read_text(encoding="utf-8")
    given = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert set(given.values()) == {""}
    asked = set(re.findall(r"\$\{(\w+):", (DEPLOY / "compose.yaml").read_text(encoding="utf-8")))
    assert asked == set(given)
    must = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text(encoding="utf-8")))
    assert must == set(_needed())
    sources = [*(ROOT / "serving").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]
    known = {name for path in sources for name in re.findall(r"\bFACTOTUM_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    inside = {"FACTOTUM_PROXY_MARK"}  # made anew at each start, by the application for itself
    missing = {name for name in known - inside if name not in text}
    assert not missing


def test_the_application_of_compose_starts_only_with_good_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from serving.access.secrets import SecretError, Secrets, new_signing_key

    compose = _yaml(DEPLOY / "compose.yaml")["services"]["app"]
    deployment = configs.load_deployment(DEPLOY / "compose-deployment.yaml")
    assert compose["environment"]["FACTOTUM_DEPLOYMENT"] == "/etc/factotum/deployment.yaml"
    assert any(volume.startswith("./compose-deployment.yaml:/etc/factotum/deployment.yaml") for volume in compose["volumes"])
    assert deployment.environment == "production"
    good = {
        "POSTGRES_PASSWORD": "0b7c9a2f51d84e63",
        "REDIS_PASSWORD": "93f1c2a07be64d58",
        "FACTOTUM_SIGNING_KEYS": new_signing_key(),
        "FACTOTUM_LOG_KEY": "7d1f0c93ab52e8647f3d91c0b5a2e86413f0d7c95ba2e864",
    }

    def started(secrets: dict[str, str]) -> Secrets:
        for name, value in compose["environment"].items():
            filled = re.sub(r"\$\{(\w+):[^}]*\}", lambda match: secrets.get(match[1], ""), value)
            monkeypatch.setenv(name, filled)
        return Secrets.from_environment(tmp_path, deployment.environment)

    assert started(good).redis == "redis://:93f1c2a07be64d58@redis:6379/0"
    bad_ones = {"POSTGRES_PASSWORD": "factotum", "REDIS_PASSWORD": "redis", "FACTOTUM_SIGNING_KEYS": "", "FACTOTUM_LOG_KEY": "short"}
    for name, bad in bad_ones.items():
        with pytest.raises(SecretError, match="FACTOTUM_"):
            started({**good, name: bad})


def test_kubernetes_takes_every_secret_from_its_secret() -> None:
    text = (DEPLOY / "kuberay.yaml").read_text(encoding="utf-8")
    asked = set(re.findall(r"secretKeyRef: \{name: factotum, key: ([a-z-]+)\}", text))
    assert asked == {"database-url", "redis-url", "signing-keys", "log-key"}
    assert all(f"--from-literal={key}=" in text for key in asked)


def test_every_alert_of_the_gateway_and_the_stores_is_there() -> None:
    named = {rule["alert"] for group in _yaml(DEPLOY / "alerts.yaml")["groups"] for rule in group["rules"]}
    assert {"BreakerOpen", "LimitsDegraded", "OutboxLag", "DeadLetters", "AuditLost", "RefreshReused"} <= named


def test_panels_of_the_board_do_not_lie_over_each_other() -> None:
    panels = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_kubernetes_objects_name_volumes_and_never_run_as_root() -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8")))
    assert [d["kind"] for d in documents] == ["PersistentVolumeClaim", "RayService", "CronJob", "NetworkPolicy"]
    cluster = documents[1]["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == _pins()["ray"]
    pods = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    pods.append(documents[2]["spec"]["jobTemplate"]["spec"]["template"])
    for pod in pods:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]} <= volumes
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_alerts_and_dashboard_ask_only_for_metrics_that_exist() -> None:
    Metrics()
    known = set(re.findall(r"^# TYPE (\w+)", Metrics().text().decode(), re.MULTILINE))
    rules = [rule["expr"] for group in _yaml(DEPLOY / "alerts.yaml")["groups"] for rule in group["rules"]]
    board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    names = {name for expression in rules + asked for name in re.findall(r"factotum_\w+", expression)}
    assert names
    unknown = {name for name in names if name not in known and re.sub(r"_(bucket|sum|count|total)$", "", name) not in known}
    assert not unknown


def test_compose_publishes_on_the_loopback_interface_and_has_no_default_password() -> None:
    services = _yaml(DEPLOY / "compose.yaml")["services"]
    assert {"postgres", "redis", "prometheus"} <= set(services)
    for service in services.values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name:
                assert ":?" in value
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).is_file()


def test_the_image_is_built_in_stages_runs_without_root_and_is_watched() -> None:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    allowed = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    assert {line.split()[0] for line in lines} <= allowed
    stages = [line for line in lines if line.startswith("FROM")]
    assert len(stages) == 2
    runtime = lines[lines.index(stages[1]) :]
    assert "USER factotum" in runtime
    assert any(line.startswith("HEALTHCHECK") and "/healthz" in line for line in runtime)
    warming = next(place for place, line in enumerate(runtime) if line.startswith("RUN") and "search import warm" in line)
    assert warming > runtime.index("USER factotum")  # what is compiled is kept in the home of who compiles, and only found by them
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), f"the image copies {source}, which is not there"
    assert json.loads(runtime[-1].removeprefix("CMD ")) == ["up", "anime", "--host", "0.0.0.0"]


def test_every_direct_dependency_is_pinned_as_the_constraints_say() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = _pins()
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in wanted:
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)(\[[a-z,]+\])?==(\S+)", requirement)
        assert match, f"{requirement} is not pinned to one version"
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        assert pins[name] == match[3], requirement


def test_make_knows_its_targets_and_up_passes_the_data_on() -> None:
    shown = subprocess.run(
        ["make", "-n", "up", "DATA=some/folder", "DOMAIN=anime", "PYTHON=python3"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert '/factotum up anime --data "some/folder"' in shown
    assert subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("script", [".ci/run"])
def test_shell_scripts_parse(script: str) -> None:
    assert subprocess.run(["bash", "-n", script], cwd=ROOT, check=False).returncode == 0
    assert f"bash {script}" in (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
