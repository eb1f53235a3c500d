"""``vdm dashboard``: the workspace that it saves on a server of W&B's API, and what it says of wrong calls."""

import base64
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from tests.cli.conftest import RunVdm
from tests.cli.wandb_server import KEY, Server, serving
from tests.data.shard_sets import write_set
from tests.training.loggers.test_wandb_logger import history
from tests.training.runs import configuration, train
from vdm import extras
from vdm.cli import dashboard
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.training.loggers.wandb_files import read_identity

# wandb-workspaces, on its import, about pydantic's former validators
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps that logs all there is to W&B, offline."""
    folder = tmp_path_factory.mktemp("logged")
    shards = write_set(folder / "shards", {"train": (5,), "validation": (3,)})
    measured = ("metric=[static_clips]", "metric.static_clips.num_frames=4", "callbacks.measure.num_videos=2")
    overrides = ("logger=wandb", "logger.wandb.project=digits", *measured, "trainer.max_steps=2")
    config = configuration(shards, *overrides, "validate.every_steps=1", without=("logger", "callbacks.samples"))
    train(folder / "run", config)
    return folder / "run"


@pytest.fixture
def run(logged: Path, tmp_path: Path) -> Path:
    """A copy of the run, for tests that change it."""
    shutil.copytree(logged, tmp_path / "run", ignore=shutil.ignore_patterns("wandb"))
    return tmp_path / "run"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with serving() as found:
        monkeypatch.delenv("WANDB_MODE")
        monkeypatch.setenv("WANDB_BASE_URL", found.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        for name in ("WANDB_SILENT", "WANDB_ERROR_REPORTING"):  # which the command sets
            monkeypatch.setenv(name, "true")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        wandb.teardown()  # it has read the environment before
        yield found
    wandb.teardown()


def saved(server: Server) -> dict[str, list[dict[str, Any]]]:
    """Return the panels of the workspace that was saved, by section."""
    (view,) = server.views
    sections = json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def patterns(panel: dict[str, Any]) -> list[str]:
    """Return regular expressions of the names that a panel shows."""
    config = panel["config"]
    if panel["viewType"] == "Weave":
        (table,) = re.findall(r'"(sample/[^"]*)"', json.dumps(config))
        return [f"^{table}$"]
    exact = [f"^{re.escape(name)}$" for name in (*config.get("metrics", ()), *config.get("mediaKeys", ()))]
    return [*exact, *([config["metricRegex"]] if "metricRegex" in config else ())]


def test_each_panel_of_a_runs_workspace_shows_what_the_run_has_logged(
    run_vdm: RunVdm, logged: Path, server: Server
) -> None:
    assert run_vdm("dashboard", f"run={logged}") == (0, "")
    found = saved(server)
    assert list(found) == ["Loss", "Gradients and updates", "Samples", "Metrics", "Speed", "Data"]
    names = {re.sub(r"/(_type|path|captions|values|videos)$", "", key) for row in history(logged) for key in row}
    for section, panels in found.items():
        for pattern in (pattern for panel in panels for pattern in patterns(panel)):
            assert any(re.search(pattern, name) for name in names), (section, pattern, names)
    lines = [panel for panels in found.values() for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert {panel["config"]["xAxis"] for panel in lines} == {"trainer/global_step"} <= names
    assert [patterns(panel) for panel in found["Metrics"]] == [[r"^val/static_clips(\[|$)"]]
    assert [panel["viewType"] for panel in found["Samples"]] == ["Media Browser", "Media Browser", "Weave"]


def test_workspace_of_a_run_is_in_the_place_that_it_recorded_and_keeps_it_in_view(
    run_vdm: RunVdm, run: Path, server: Server
) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["logger"]["wandb"]["entity"] = "team"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    monitored = ("metrics=[fid, kvd]", "name=Ours")
    assert run_vdm("dashboard", f"run={run}", *monitored) == (0, "")
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("team", "digits", "Ours")
    (runset,) = json.loads(view["spec"])["section"]["runSets"]
    identity = read_identity(run).name
    assert [base64.b64decode(pin).decode() for pin in runset["pinnedRunIds"]] == [f"Run:v1:{identity}:digits:team"]
    assert [panel["config"]["chartTitle"] for panel in saved(server)["Metrics"]] == ["fid", "kvd"]


def test_workspace_of_a_project_is_the_accounts_own_and_shows_all_metrics_of_this_package(
    monkeypatch: pytest.MonkeyPatch, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vdm", "dashboard", "project=digits"])
    assert run_program("vdm", COMMANDS) == 0
    (view,) = server.views
    address = f"{server.url}/me/digits?nw={view['name'].removeprefix('nw-').removesuffix('-v')}"
    assert capfd.readouterr().out == f"Workspace: {address}\n"
    (panel,) = saved(server)["Metrics"]
    (pattern,) = patterns(panel)
    for name in ("val/fid", "val/fvd_original", "val/static_clips[num_frames=4]"):
        assert re.search(pattern, name)
    assert not re.search(pattern, "val/loss")
    assert not re.search(pattern, "val/fid_other")


@pytest.mark.parametrize(
    ("arguments", "refusal", "said"),
    [
        (["project=other"], None, "W&B: me/other: no such project; what was logged offline is uploaded by: wandb sync"),
        (["project=digits"], ("viewer", 401, "user is not logged in"), "user is not logged in"),
        (["project=digits"], ("GetProject", 200, "permission denied"), "W&B: me/digits: input: permission denied"),
        (["project=digits"], ("upsertView", 403, "permission denied"), "permission denied"),
        (["project=digits", "name=a+b"], None, "name=a+b: W&B takes letters, digits and punctuation, but no emoji"),
        ([], None, "give run=RUN, or project=NAME"),
        (["project=digits", "run=."], None, "give run=RUN, or project=NAME"),
        (["project=digits", "metrics=fid"], None, "metrics=fid: must be a list"),
    ],
)
def test_refusal_is_one_line(
    run_vdm: RunVdm, server: Server, arguments: list[str], refusal: tuple[str, int, str] | None, said: str
) -> None:
    server.refusal = refusal
    code, told = run_vdm("dashboard", *arguments)
    assert code == 2
    assert said in told
    assert told.count("\n") == 1
    assert not server.views


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("WANDB_API_KEY", None, "W&B: no API key; set WANDB_API_KEY, or type: wandb login\n"),
        ("WANDB_MODE", "offline", "WANDB_MODE=offline: a workspace is made on a server; unset WANDB_MODE\n"),
        ("WANDB_BASE_URL", "http://127.0.0.1:9", "W&B: http://127.0.0.1:9 can't be reached: "),
        ("WANDB_BASE_URL", "http://a b", "W&B: http://a b can't be reached: "),
    ],
)
def test_no_key_no_network_and_no_server_are_told_apart(
    run_vdm: RunVdm, server: Server, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, said: str
) -> None:
    monkeypatch.delenv(variable, raising=False)
    if value is not None:
        monkeypatch.setenv(variable, value)
    code, told = run_vdm("dashboard", "project=digits")
    assert code == 2
    assert told.startswith(said)
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("logger", "said"),
    [
        (None, "does not log to W&B"),
        ({"csv": {"_target_": "vdm.training.loggers.csv_logger.csv"}}, "does not log to W&B"),
        ({"wandb": {"_target_": dashboard.LOGGER, "project": 3}}, "logger: project=3 is not allowed"),
        ({"wandb": {"_target_": dashboard.LOGGER, "project": ""}}, "logger: project='' is not allowed"),
        ([1], "logger=[1] is not allowed"),
    ],
)
def test_run_whose_configuration_names_no_project_is_one_line(
    run_vdm: RunVdm, run: Path, server: Server, logger: Any, said: str
) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "logger": logger}))
    code, told = run_vdm("dashboard", f"run={run}")
    assert code == 2
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("content", [b"a/b/c", b"\xff", b"x" * 2000, b"ok many"])
def test_damaged_id_is_one_line(run_vdm: RunVdm, run: Path, server: Server, content: bytes) -> None:
    (run / "wandb_id").write_bytes(content)
    code, told = run_vdm("dashboard", f"run={run}")
    assert code == 2
    assert told.startswith(f"{run / 'wandb_id'}: ")
    assert told.count("\n") == 1


def test_missing_library_is_one_line_with_its_extra(run_vdm: RunVdm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    said = "vdm dashboard: the package 'wandb_workspaces' is not installed: pip install '.[dashboards]'\n"
    assert run_vdm("dashboard", "project=digits") == (2, said)
