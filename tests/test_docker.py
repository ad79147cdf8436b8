"""The container files, checked as text: there is no engine to run them on where these tests run (docs/how-to/run-on-ray.md)."""

from __future__ import annotations

import copy
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from typer.core import TyperGroup

from jobs.cli import app

ROOT = Path(__file__).parents[1]
CRD = "EICORPUS_KUBERAY_CRD"
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))
MANIFESTS = sorted(DOCKER.glob("*.yaml"))
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
RAYJOB: dict[str, Any] = yaml.safe_load((DOCKER / "rayjob.yaml").read_text())
CLUSTER: dict[str, Any] = RAYJOB["spec"]["rayClusterSpec"]
GROUPS: list[dict[str, Any]] = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())

each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
each_group = pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.get("groupName", "head"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) of a Dockerfile, comments dropped and continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(word.upper(), rest) for word, rest in pairs]


def stages(path: Path) -> list[list[tuple[str, str]]]:
    out: list[list[tuple[str, str]]] = []
    for word, rest in instructions(path):
        if word == "FROM":
            out.append([])
        out[-1].append((word, rest))
    return out


# --- images ----------------------------------------------------------------------------------------------------------


def test_there_are_two_images() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.ingest", "Dockerfile.train"]


@each_dockerfile
def test_base_images_are_pinned_by_a_full_version(path: Path) -> None:
    for stage in stages(path):
        image = stage[0][1].split()[0]
        assert re.search(r":\d+\.\d+\.\d+-[a-z]", image), f"{image} may change under us"


@each_dockerfile
def test_what_is_copied_exists_and_reaches_the_engine(path: Path) -> None:
    kept = {
        line[1:].strip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for word, rest in instructions(path):
        assert word != "ADD"
        if word == "COPY" and "--from=" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert Path(source).as_posix() in kept, f".dockerignore hides {source}"


@each_dockerfile
def test_every_package_is_in_the_wheel_stage(path: Path) -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    copied = {rest.split()[0] for word, rest in stages(path)[0] if word == "COPY"}
    assert {package.split(".")[0] for package in tools["packages"]} <= copied
    assert {place.split("/")[0] for place in tools["package-dir"].values()} <= copied


@each_dockerfile
def test_packages_come_from_the_constraints_and_the_baked_wheel(path: Path) -> None:
    installs = [r for w, r in stages(path)[-1] if w == "RUN" and "pip install" in r]
    assert len(installs) == 1
    assert "-c /tmp/constraints.txt" in installs[0]
    assert "/tmp/dist/*.whl" in installs[0]
    extras = {
        "Dockerfile.train": "[train,vlm,policy-server,wandb]",  # what its recipes ask for
        "Dockerfile.ingest": "[service]",
    }
    assert f'"$(ls /tmp/dist/*.whl){extras[path.name]}"' in installs[0]


@each_dockerfile
def test_the_image_runs_eicorpus_as_a_user_without_rights(path: Path) -> None:
    last = dict(stages(path)[-1])
    assert last["ENTRYPOINT"] == '["eicorpus"]'
    user, _, group = last["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert f"--uid {user} " in path.read_text()
    words = [word for word, _ in stages(path)[-1]]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word == "RUN")


# --- no secrets, nothing that moves ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCKERFILES + MANIFESTS, ids=lambda p: p.name)
def test_no_secret_and_no_latest(path: Path) -> None:
    text = path.read_text()
    assert ":latest" not in text
    assert not re.search(r"(?i)(password|secret_key|api_key|auth_token)\s*[:=]\s*\S", text)
    assert not re.search(r"(?i)index-url|trusted-host|find-links", text)
    for word, rest in instructions(path) if path in DOCKERFILES else []:
        if word in {"ENV", "ARG"}:
            assert not re.search(r"(?i)token|secret|passw|key", rest)


def test_the_token_of_compose_is_a_file_that_git_ignores() -> None:
    files = {name: secret["file"] for name, secret in COMPOSE["secrets"].items()}
    assert files == {"ray_token": "./ray_token", "service_token": "./service_token"}
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {f"docker/{name}" for name in files} <= set(ignored)


def images(value: Any) -> Iterator[str]:
    """Every `image:` anywhere in a manifest."""
    if isinstance(value, dict):
        if isinstance(value.get("image"), str):
            yield value["image"]
        for inner in value.values():
            yield from images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images(inner)


@pytest.mark.parametrize("manifest", [COMPOSE, RAYJOB], ids=["compose", "rayjob"])
def test_manifests_use_our_image_of_this_version(manifest: dict[str, Any]) -> None:
    found = list(images(manifest))
    assert found
    for image in found:
        assert image.rpartition("/")[2] == f"eicorpus-ingest:{VERSION}"


def test_the_comments_of_the_dockerfiles_name_this_version() -> None:
    for path in DOCKERFILES:
        assert f":{VERSION} ." in path.read_text()


# --- compose ---------------------------------------------------------------------------------------------------------


def test_compose_builds_from_files_that_exist() -> None:
    for service in COMPOSE["services"].values():
        context = (DOCKER / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["head", "worker", "job"])
def test_a_service_asks_for_the_token_and_publishes_nothing(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert service["secrets"] == ["ray_token"]
    assert "ports" not in service
    assert "privileged" not in service
    assert service["cap_drop"] == ["ALL"]
    raw = next(v for v in service["volumes"] if v["target"] == "/data/raw")
    assert raw["read_only"] is True


def test_the_service_reads_the_corpus_and_is_published_on_loopback_alone() -> None:
    service = COMPOSE["services"]["service"]
    assert service["ports"] == ["127.0.0.1:8321:8321"]
    assert service["secrets"] == ["service_token"]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["profiles"] == ["service"]  # `up` without it starts what it started before
    mounts = {volume["target"]: volume.get("read_only", False) for volume in service["volumes"]}
    assert mounts == {"/data/out": True, "/data/state": False}


def test_the_service_is_where_prometheus_and_its_health_check_ask() -> None:
    service = COMPOSE["services"]["service"]
    words = [*service["entrypoint"], *service["command"]]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    params = group.commands["serve"].make_context("serve", words[2:]).params
    assert str(params["token_file"]) == "/run/secrets/service_token"
    assert str(params["state"]) == "/data/state"
    scrape = yaml.safe_load((DOCKER / "monitoring" / "prometheus.yml").read_text())
    (target,) = scrape["scrape_configs"][0]["static_configs"][0]["targets"]
    printed, *others = params["allow_host"]  # the link that is printed has the first
    assert printed == "localhost"
    assert target in [f"{name}:{params['port']}" for name in others]
    assert service["healthcheck"]["test"][-1].endswith(f":{params['port']}/healthz")


def test_the_head_of_compose_lends_no_cpu() -> None:
    assert "--num-cpus=0" in COMPOSE["services"]["head"]["entrypoint"]


def test_the_job_reaches_the_head_by_its_name() -> None:
    job = COMPOSE["services"]["job"]
    assert job["environment"]["RAY_API_SERVER_ADDRESS"] == "http://head:8265"
    assert job["entrypoint"] == ["ray", "job", "submit", "--"]


# --- the command lines are ones that our command line has -------------------------------------------------------------


def ingest_commands() -> list[list[str]]:
    compose = [
        re.sub(r"\$\{EICORPUS_SOURCE:.*\}", "oxe", a) for a in COMPOSE["services"]["job"]["command"]
    ]
    return [compose, shlex.split(RAYJOB["spec"]["entrypoint"])]


@pytest.mark.parametrize("words", ingest_commands(), ids=["compose", "rayjob"])
def test_the_command_parses(words: list[str]) -> None:
    group = typer.main.get_command(app)
    assert words[:2] == ["eicorpus", "ingest"]
    assert isinstance(group, TyperGroup)
    command = group.commands["ingest"]
    context = command.make_context("ingest", words[2:])
    assert context.params["ray"] is True
    assert context.params["address"] == "auto"
    assert str(context.params["out"]).startswith("/data/out/")


# --- KubeRay ---------------------------------------------------------------------------------------------------------


def test_the_ray_version_is_that_of_the_image() -> None:
    assert CLUSTER["rayVersion"] == PINS["ray"]


def test_the_job_cleans_up_retries_and_asks_for_a_token() -> None:
    spec = RAYJOB["spec"]
    assert (RAYJOB["apiVersion"], RAYJOB["kind"]) == ("ray.io/v1", "RayJob")
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert CLUSTER["authOptions"] == {"mode": "token"}


def closed(schema: Any) -> Any:
    """As the API server with strict validation: a field that is not in the schema is an error; `int-or-string` is either."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: closed(value) for name, value in schema.items()}
    if out.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    is_open = "additionalProperties" in out or out.get("x-kubernetes-preserve-unknown-fields")
    if out.get("type") == "object" and "properties" in out and not is_open:
        out["additionalProperties"] = False
    return out


@pytest.mark.skipif(
    CRD not in os.environ, reason=f"NOT RUN: {CRD} names no ray.io_rayjobs.yaml of KubeRay"
)
def test_the_rayjob_fits_the_schema_of_the_operator() -> None:
    """The schema is KubeRay's and not part of this project."""
    crd = yaml.safe_load(Path(os.environ[CRD]).read_text())
    (schema,) = (v["schema"] for v in crd["spec"]["versions"] if v["name"] == RAYJOB["apiVersion"].partition("/")[2])  # fmt: skip
    validator = jsonschema.Draft202012Validator(closed(schema["openAPIV3Schema"]) | {"additionalProperties": True})  # fmt: skip
    rayjob = {name: value for name, value in RAYJOB.items() if name != "metadata"}
    assert [error.message for error in validator.iter_errors(rayjob)] == []
    misspelt = copy.deepcopy(rayjob)
    misspelt["spec"]["rayClusterSpec"]["enableInTreeAutoscalling"] = True
    assert "enableInTreeAutoscalling" in str(next(validator.iter_errors(misspelt)).message)


def test_the_head_lends_no_cpu_and_only_workers_stand_on_spot_nodes() -> None:
    head, *workers = GROUPS
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "tolerations" not in head["template"]["spec"]
    assert workers
    for group in workers:
        assert group["template"]["spec"]["tolerations"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@each_group
def test_a_pod_has_no_rights_and_bounded_resources(group: dict[str, Any]) -> None:
    spec = group["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    (container,) = spec["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert all(isinstance(value, str) for value in group["rayStartParams"].values())


@each_group
def test_a_pod_mounts_what_it_declares_with_raw_data_read_only(group: dict[str, Any]) -> None:
    spec = group["template"]["spec"]
    mounts = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert mounts["raw"]["readOnly"] is True
    assert mounts["dshm"]["mountPath"] == "/dev/shm"
    assert volumes["dshm"]["emptyDir"]["medium"] == "Memory"
