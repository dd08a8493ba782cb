"""docker-compose.yml: its schema, its references, what it lets nobody do; and the same processes started by hand.

There is no Docker here. So the commands, the environment and the health checks are taken from the file, other hosts and
folders put in, and started against a PostgreSQL with passwords and a real MLflow server: about 50 s of CPU.
"""

from __future__ import annotations

import base64
import configparser
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from compose_file import ROOT, dockerfile, entrypoint, image_environment, interpolate, read_compose
from mlflow.exceptions import MlflowException
from own_postgres import OwnPostgres, free_port

from tuner.errors import TrackingRefused, TrackingUnavailable
from tuner.tracking import MLflowTracker
from tuner.trial import Objective

COMPOSE = read_compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LASTING = [name for name, service in SERVICES.items() if service["restart"] != "no"]
FILE = ROOT / "docker-compose.yml"
EXTRAS = "postgres,server,cmaes"


def seconds(text: str) -> int:
    """Compose's `90s` and `2m`."""
    return sum(int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in re.findall(r"(\d+)([smh])", text))


# The file


def check_schema(*files: Path) -> None:
    tool = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_s_own_schema_takes_it() -> None:
    check_schema(FILE)


def test_compose_s_own_schema_takes_what_the_guide_adds(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/deploy.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    files = []
    for number, block in enumerate(blocks):
        files.append(tmp_path / f"{number}.yml")
        files[-1].write_text(block.replace("!override", ""), "utf-8")
    check_schema(*files)


@pytest.mark.parametrize("name", SERVICES)
def test_everything_that_a_service_names_is_there(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("depends_on", {})) <= SERVICES.keys() - {name}
    assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
    assert {config["source"] for config in service.get("configs", [])} <= COMPOSE["configs"].keys()
    assert set(service["networks"]) <= COMPOSE["networks"].keys()
    named = [mount.split(":")[0] for mount in service.get("volumes", []) if isinstance(mount, str)]
    assert set(named) <= COMPOSE["volumes"].keys()
    files = [value for key, value in service.get("environment", {}).items() if key.endswith("_FILE")]
    assert {Path(file).name for file in files} <= set(service.get("secrets", [])), "it reads a secret that it has not"


def test_nothing_is_declared_in_vain() -> None:
    used: dict[str, set[str]] = {"secrets": set(), "configs": set(), "networks": set(), "volumes": set()}
    for service in SERVICES.values():
        used["secrets"] |= set(service.get("secrets", []))
        used["configs"] |= {config["source"] for config in service.get("configs", [])}
        used["networks"] |= set(service["networks"])
        used["volumes"] |= {mount.split(":")[0] for mount in service.get("volumes", []) if isinstance(mount, str)}
    assert {kind: set(COMPOSE[kind]) for kind in used} == used


def test_files_that_it_mounts_are_in_the_repository() -> None:
    for config in COMPOSE["configs"].values():
        assert (ROOT / config["file"]).is_file()  # not `content`: Compose cannot write that into a read-only root
    (code,) = [mount for mount in SERVICES["worker"]["volumes"] if not isinstance(mount, str)]
    assert (ROOT / code["source"]).is_dir()
    assert code["read_only"] is True
    assert code["bind"] == {"create_host_path": False}, "a folder that is mistyped must not be made, as root's"


def test_make_secrets_makes_all_that_are_named_and_leaves_those_that_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "mlflow_password").write_text("mine\n")
    subprocess.run(["make", "secrets", f"SECRETS={folder}"], cwd=ROOT, check=True, capture_output=True)
    found = {file.name: file.read_text().strip() for file in folder.iterdir()}
    assert set(found) == set(COMPOSE["secrets"])
    assert found.pop("mlflow_password") == "mine"
    assert len(set(found.values())) == len(found)
    assert all(len(password) >= 32 for password in found.values())
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o444}


def test_ports_are_open_on_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"mlflow": ["127.0.0.1:5000:5000"]}
    assert not any("network_mode" in service for service in SERVICES.values())
    assert COMPOSE["networks"]["storage"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == ["storage"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_can_do_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] not in ("", "root", "0", "0:0")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & service.keys()
    assert "/tmp" in service["tmpfs"]  # noqa: S108 - the container's own


@pytest.mark.parametrize("name", SERVICES)
def test_passwords_come_from_files(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        assert not re.search(r"://[^/@]*:[^/@]*@", value), key
        if re.search("PASSWORD|SECRET|TOKEN|KEY", key):
            assert key.endswith("_FILE")
            assert value.startswith("/run/secrets/")
    assert "env_file" not in SERVICES[name]
    command = " ".join(SERVICES[name].get("command", []))
    assert not re.search(r"://[^/@]*:[^/@]*@|passw", command)
    users = configparser.ConfigParser()
    users.read(ROOT / COMPOSE["configs"]["mlflow_users"]["file"])
    assert "admin_password" not in users["mlflow"]


def test_health_checks_leave_as_long_as_a_start_may_take() -> None:
    for name in LASTING:
        check = SERVICES[name]["healthcheck"]
        assert seconds(check["start_period"]) >= 60
        assert seconds(check["timeout"]) < seconds(check["interval"])
    assert SERVICES["init"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("mlflow", "worker"):
        assert SERVICES[name]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
    assert seconds(SERVICES["worker"]["stop_grace_period"]) > 10


def test_the_image_s_extras_exist_and_compose_and_dockerfile_agree_on_them() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert re.findall(r"^ARG EXTRAS=(\S+)$", text, re.MULTILINE) == [EXTRAS]
    assert '".[${EXTRAS}]"' in text
    services = ("init", "mlflow", "worker")
    assert [SERVICES[name]["build"]["args"]["EXTRAS"] for name in services] == [EXTRAS] * 3
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for line in text.splitlines():  # the comments' examples, too
        for named in re.findall(r"EXTRAS=([\w,]+)", line):
            assert set(named.split(",")) <= known.keys()
    assert {"postgres", "server"} <= set(EXTRAS.split(","))


def test_variables_are_put_in_as_compose_does_it() -> None:
    assert interpolate("${A:-x}${B:-y}${C}$$d", {"A": "1", "B": ""}) == "1y$d"
    given = read_compose(
        MLFLOW_PORT="8080",
        WORKERS="4",
        DEVICE="cuda",
        TUNER_CODE="/my/code",
        TUNER_SECRETS="/my/s",
        EXTRAS=EXTRAS + ",ray",
    )
    assert given["services"]["mlflow"]["ports"] == ["127.0.0.1:8080:5000"]
    worker = given["services"]["worker"]
    assert worker["deploy"]["replicas"] == "4"
    assert worker["image"] == "tuner:cuda"
    assert worker["build"]["args"] == {"DEVICE": "cuda", "EXTRAS": "postgres,server,cmaes,ray"}
    assert worker["volumes"][1]["source"] == "/my/code"
    assert given["secrets"]["postgres_tuner"]["file"] == "/my/s/postgres_tuner"


def test_the_image_runs_as_the_user_that_the_file_names_and_has_its_folders() -> None:
    instructions = dockerfile()
    user = next(rest for word, rest in instructions if word == "USER")
    assert {SERVICES[name]["user"] for name in ("init", "mlflow", "worker")} == {user}
    made = next(rest for word, rest in instructions if word == "RUN")
    assert f"--uid {user.split(':')[0]}" in made
    for mount in ("checkpoints:/var/lib/tuner", "artifacts:/var/lib/mlflow"):
        assert any(mount in service.get("volumes", []) for service in SERVICES.values())
        assert mount.split(":")[1] in made, "a new volume gets the owner of the image's folder"


def test_the_image_gets_only_what_it_is_built_from() -> None:
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    assert all((ROOT / name).exists() for name in kept)
    assert "secrets" not in kept
    assert {"secrets/", ".env"} <= set((ROOT / ".gitignore").read_text().split("\n"))


# The same processes by hand


class Stack:
    """docker-compose.yml's services as processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets = folder / "secrets"
        subprocess.run(["make", "secrets", f"SECRETS={self.secrets}"], cwd=ROOT, check=True, capture_output=True)
        arguments = SERVICES["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
        self.postgres = OwnPostgres(self.secret("postgres_superuser"), arguments)
        sql = ROOT / COMPOSE["configs"]["databases"]["file"]
        self.postgres.script(sql, TUNER_SECRETS=str(self.secrets))
        self.port = free_port()
        users = self._here((ROOT / COMPOSE["configs"]["mlflow_users"]["file"]).read_text())
        (folder / "basic_auth.ini").write_text(users)
        (folder / "code").mkdir()

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, service: str) -> dict[str, str]:
        """What a container of this service begins with."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("TUNER_", "MLFLOW_", "PG"))}
        given = {**image_environment(), **SERVICES[service].get("environment", {})}
        home = {"HOME": str(self.folder), "PGPASSFILE": str(self.folder / f"{service}.pgpass")}
        here = {key: self._here(value) for key, value in given.items()}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**mine, **here, **home, "PATH": path, "TUNER_SECRETS": str(self.secrets), "OMP_NUM_THREADS": "1"}

    def command(self, service: str, command: list[str] | None = None) -> list[str]:
        """A service's own command, or another one in a container of it."""
        return [*entrypoint(), *(self._here(part) for part in command or SERVICES[service]["command"])]

    def run(self, service: str, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run to the end: what `docker compose run` does."""
        process = self.start(service, command)
        out, _ = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out)

    def start(self, service: str, command: list[str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(service, command),
            env=self.environment(service),
            cwd=self.folder / "code",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def healthy(self, service: str) -> bool:
        """Whether the service's health check passes; it runs beside the entrypoint, as `docker exec` does."""
        test = [self._here(part) for part in SERVICES[service]["healthcheck"]["test"]]
        assert test.pop(0) == "CMD"
        environment = self.environment(service)
        return subprocess.run(test, env=environment, capture_output=True, check=False).returncode == 0

    def get(self, path: str, user: str = "", host: str = "") -> int:
        """The status of an answer of MLflow's."""
        return self._status(urllib.request.Request(f"{self.url}{path}"), user, host)  # noqa: S310 - http

    def send(self, method: str, path: str, user: str, document: Mapping[str, Any]) -> int:
        """The status of the answer to a document."""
        content, kind = json.dumps(document).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", content, kind, method=method)  # noqa: S310 - http
        return self._status(request, user)

    def _status(self, request: urllib.request.Request, user: str, host: str = "") -> int:
        if user:
            request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
        if host:
            request.add_header("Host", host)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - http
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def close(self) -> None:
        self.postgres.close()

    def _here(self, text: str) -> str:
        """Other hosts, ports and folders for those inside the containers."""
        for inside, outside in {
            "postgres:5432": f"127.0.0.1:{self.postgres.port}",
            "http://mlflow:5000": self.url,
            "http://127.0.0.1:5000": self.url,
            "--port=5000": f"--port={self.port}",
            "--host=0.0.0.0": "--host=127.0.0.1",
            "/run/secrets": str(self.secrets),
            "/etc/mlflow": str(self.folder),
            "/var/lib": str(self.folder),
        }.items():
            text = text.replace(inside, outside)
        return text


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """PostgreSQL with what the image makes at its first start, and `init` run three times, twice at once."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        both = [stack.start("init") for _ in range(2)]
        said = [process.communicate(timeout=300)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        again = stack.run("init")
        assert again.returncode == 0, again.stdout
        assert again.stdout.count(" is ready.") == 3
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="module")
def server(stack: Stack) -> Iterator[subprocess.Popen[str]]:
    """The MLflow server, once its health check passes."""
    with (stack.folder / "mlflow.log").open("w") as log:
        process = subprocess.Popen(
            stack.command("mlflow"),
            env=stack.environment("mlflow"),
            cwd=stack.folder / "code",
            stdout=log,
            stderr=log,
            text=True,
        )
    deadline = time.monotonic() + 600  # this machine may be busier than one that serves
    try:
        while not stack.healthy("mlflow"):
            assert process.poll() is None, (stack.folder / "mlflow.log").read_text()
            assert time.monotonic() < deadline, "MLflow does not start"
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=seconds(SERVICES["mlflow"]["stop_grace_period"]))


def test_mlflow_lets_in_who_knows_the_password_and_calls_it_by_a_known_name(
    stack: Stack, server: subprocess.Popen[str]
) -> None:
    experiments = "/api/2.0/mlflow/experiments/search?max_results=1"
    right = f"tuner:{stack.secret('mlflow_password')}"
    assert stack.get(experiments) == 401
    assert stack.get(experiments, "tuner:password1234") == 401
    assert stack.get(experiments, right) == 200
    assert stack.get(experiments, right, host="mlflow:5000") == 200
    assert stack.get(experiments, right, host="evil.example") == 403
    assert stack.get("/health") == 200


def test_workers_may_write_what_is_theirs_at_mlflow_and_nothing_else(
    stack: Stack, server: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of a study runs as a worker; it must not change users, or what others have made."""
    worker = SERVICES["worker"]["environment"]["MLFLOW_TRACKING_USERNAME"]
    client = mlflow.MlflowClient(stack.url)

    def log_in(name: str, secret: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", stack.secret(secret))

    log_in("tuner", "mlflow_password")
    theirs = client.create_experiment("somebody-else-s")
    log_in(worker, "mlflow_worker_password")
    assert client.get_experiment(theirs).name == "somebody-else-s", "it may read"
    with pytest.raises(MlflowException, match="403"):
        client.create_run(theirs)
    with pytest.raises(MlflowException, match="403"):
        client.delete_experiment(theirs)
    users, me = "/api/2.0/mlflow/users", f"{worker}:{stack.secret('mlflow_worker_password')}"
    mine = {"username": "another", "password": "a-password-of-mine"}
    assert stack.send("POST", f"{users}/create", me, mine) == 403
    assert stack.send("PATCH", f"{users}/update-password", me, {**mine, "username": "tuner"}) == 403
    assert stack.send("PATCH", f"{users}/update-admin", me, {"username": worker, "is_admin": True}) == 403
    own = client.create_run(client.create_experiment("own"))
    client.delete_run(own.info.run_id)


def test_init_never_takes_the_administrator_s_account_for_the_workers(stack: Stack) -> None:
    environment = {**stack.environment("init"), "MLFLOW_TRACKING_USERNAME": "tuner"}
    done = subprocess.run(stack.command("init"), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "must be an account for workers, but tuner is an administrator" in done.stderr


def test_a_wrong_password_for_mlflow_is_an_outage_after_which_nothing_is_lost(
    stack: Stack, server: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "tuner")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2hunter2")
    with pytest.raises(TrackingUnavailable, match="401") as told:
        MLflowTracker(stack.url, tmp_path, "small", Objective("val_loss")).open({}, {})
    assert not isinstance(told.value, TrackingRefused), "what is refused is not sent again"
    assert "hunter2" not in str(told.value)


def test_no_password_is_in_a_container_s_configuration_or_command_lines(
    stack: Stack, server: subprocess.Popen[str]
) -> None:
    passwords = [stack.secret(name) for name in COMPOSE["secrets"]]
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"uvicorn .*{stack.port}", listed)
    assert "postgres: mlflow mlflow_auth" in listed
    told = [listed, (stack.folder / "mlflow.log").read_text()]
    told += [json.dumps([stack.environment(name), stack.command(name)]) for name in ("init", "mlflow", "worker")]
    assert not [password for password in passwords if any(password in text for text in told)]


def test_a_study_s_runs_and_artifacts_arrive_at_the_server(
    stack: Stack, server: subprocess.Popen[str], study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study["trainer"]["max_epochs"] = 1
    study["search"]["trials"] = 2
    (stack.folder / "code" / "study.yaml").write_text(json.dumps(study))
    ran = stack.run("worker", ["tuner", "run", "study.yaml", "--quiet"])
    assert ran.returncode == 0, ran.stdout
    assert "not in MLflow" not in ran.stdout
    assert stack.healthy("worker")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "tuner")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", stack.secret("mlflow_password"))
    client = mlflow.MlflowClient(stack.url)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sorted(run.info.run_name for run in runs) == ["small", "trial-0000", "trial-0001"]
    parent = next(run for run in runs if run.info.run_name == "small")
    names = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert names == {"study.yaml", "space.yaml", "best.yaml", "report.html"}
    assert {file.name for file in (stack.folder / "mlflow").rglob("*.*") if file.name in names} == names, (
        "they lie on the server's volume"
    )
    assert list((stack.folder / "tuner" / "checkpoints" / "small").glob("*.ckpt"))
    assert list((stack.folder / "code").iterdir()) == [stack.folder / "code" / "study.yaml"], "the code is read-only"


def test_wrong_passwords_are_refused_by_postgres(stack: Stack, tmp_path: Path) -> None:
    """Without this, the tests above would pass on a server that trusts everybody."""
    environment: Mapping[str, str] = {**stack.environment("worker"), "PGPASSFILE": str(tmp_path / "none")}
    refused = subprocess.run(["tuner", "list"], env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "no password supplied" in refused.stderr
