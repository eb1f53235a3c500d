"""Which folder and configuration a resumed run has, and what it may change."""

from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from tests.cli.conftest import RunVdm, Vdm
from tests.cli.recording import record
from tests.data.shard_sets import write_set
from vdm.checkpoints.layout import checkpoint_folder
from vdm.checkpoints.run_record import load_config, record_run, write_config
from vdm.cli.resume import apply_resume_overrides
from vdm.config import ConfigError
from vdm.training.starts import record_resume

SAVED = {"seed": 1, "trainer": {"max_steps": 10, "devices": 1, "extra": "own"}, "logger": {"kind": "csv"}}


def test_resumed_run_goes_on_in_its_folder_under_its_configuration(vdm: Vdm) -> None:
    vdm("train", "hydra.run.dir=first", "model=large", "seed=5", task=record)
    folders = []

    outcome = vdm(
        "train",
        "resume=first",
        "trainer.max_steps=99",
        task=lambda config: folders.append(HydraConfig.get().runtime.output_dir),
    )

    (config,) = outcome.configs
    assert (config.model.width, config.seed, config.trainer.max_steps, config.resume) == (256, 5, 99, "first")
    assert folders == [str(Path("first").absolute())]


def test_run_can_be_resumed_by_one_of_its_checkpoints(vdm: Vdm) -> None:
    vdm("train", "hydra.run.dir=first", "seed=5", task=record)
    checkpoint = checkpoint_folder(Path("first"), 7)
    checkpoint.mkdir(parents=True)

    # "=" in a value is quoted for Hydra's grammar
    outcome = vdm("train", f"resume='{checkpoint}'", task=record)

    assert outcome.code == 0
    assert load_config(Path("first"))["seed"] == 5
    assert load_config(Path("first"))["resume"] == str(checkpoint)


def test_relative_path_of_data_is_found_from_another_folder_and_in_a_moved_project(
    vdm: Vdm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "work"
    Path("here").mkdir()
    vdm("train", "hydra.run.dir=first", "data.path=here", task=record)
    assert load_config(Path("first"))["started_in"] == str(project)
    assert vdm("train", "resume=first").configs[0].data.path == "here"

    monkeypatch.chdir(tmp_path)
    (config,) = vdm("train", "resume=work/first").configs
    assert (config.data.path, config.started_in) == (str(project / "here"), str(tmp_path))
    assert vdm("train", "resume=work/first", "data.path=other").configs[0].data.path == "other"

    monkeypatch.chdir(project.rename(tmp_path / "moved"))
    assert vdm("train", "resume=first").configs[0].data.path == "here"


def test_run_started_again_in_its_folder_goes_on(vdm: Vdm) -> None:
    vdm("train", "hydra.run.dir=first", "seed=5", task=record)
    checkpoint_folder(Path("first"), 7).mkdir(parents=True)

    outcome = vdm("train", "hydra.run.dir=first", "seed=5", "trainer.max_steps=99")

    (config,) = outcome.configs
    assert (config.resume, config.seed, config.trainer.max_steps) == (str(Path("first").absolute()), 5, 99)


@pytest.mark.parametrize("variable", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_restarted_job_goes_on_from_its_own_progress_whatever_it_was_to_resume(
    vdm: Vdm, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    vdm("train", "hydra.run.dir=first", "seed=5", task=record)
    checkpoint_folder(Path("first"), 7).mkdir(parents=True)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    options = ("resume=first", "hydra.run.dir=second", "trainer.max_steps=99")
    vdm("train", *options, task=record)
    checkpoint_folder(Path("second"), 9).mkdir(parents=True)

    assert vdm("train", *options).configs[0].resume == "first"
    monkeypatch.setenv(variable, "1")
    (config,) = vdm("train", *options).configs
    assert (config.resume, config.seed, config.trainer.max_steps) == (str(Path("second").absolute()), 5, 99)


def test_restarted_job_goes_on_from_the_checkpoint_it_was_told_to_until_it_has(
    vdm: Vdm, monkeypatch: pytest.MonkeyPatch
) -> None:
    vdm("train", "hydra.run.dir=first", task=record)
    for step in (2, 4):
        checkpoint_folder(Path("first"), step).mkdir(parents=True)
    checkpoint = checkpoint_folder(Path("first"), 2)
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "vdm", "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    command = ("train", f"resume='{checkpoint}'")

    before = vdm(*command).configs[0].resume
    record_resume(Path("first"), checkpoint)
    after = vdm(*command).configs[0].resume
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    of_a_later_job = vdm(*command).configs[0].resume

    assert (before, after, of_a_later_job) == (str(checkpoint), str(Path("first").absolute()), str(checkpoint))


def test_restarted_job_knows_by_a_link_which_checkpoint_it_has_gone_on_from(
    vdm: Vdm, monkeypatch: pytest.MonkeyPatch
) -> None:
    vdm("train", "hydra.run.dir=first", task=record)
    checkpoint = checkpoint_folder(Path("first").absolute(), 2)
    checkpoint.mkdir(parents=True)
    (checkpoint.parent / "best").symlink_to(checkpoint.name)
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "vdm", "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)

    before = vdm("train", "resume=first/checkpoints/best").configs[0].resume
    record_resume(Path("first"), checkpoint)

    assert before == str(checkpoint)
    assert vdm("train", "resume=first/checkpoints/best").configs[0].resume == str(Path("first").absolute())


def test_run_recorded_by_an_earlier_version_goes_on_by_its_present_names(vdm: Vdm, small_conf: Path) -> None:
    train = small_conf / "train.yaml"
    train.write_text(train.read_text() + "training: {condition_dropout: {all: 0.1, text: 0.5}}\n")
    vdm("train", "hydra.run.dir=first", task=record)
    recorded = load_config(Path("first"))
    former = {"_target_": "vdm.training.module.ConditionDropout", "all": 0.1, "text": 0.5}
    write_config(Path("first"), {**recorded, "training": {"condition_dropout": former}})
    checkpoint_folder(Path("first"), 7).mkdir(parents=True)

    for way in ("resume=first", "hydra.run.dir=first"):
        (config,) = vdm("train", way).configs
        assert config.training.condition_dropout == {"all": 0.1, "text": 0.5}
        assert config.resume is not None


def test_run_without_a_checkpoint_begins_anew_in_its_folder(vdm: Vdm) -> None:
    vdm("train", "hydra.run.dir=first", "seed=5", task=record)

    assert vdm("train", "hydra.run.dir=first", "seed=6").configs[0].resume is None


def test_run_that_was_killed_before_its_first_checkpoint_can_not_be_resumed_and_says_how_to_begin_it_again(
    run_vdm: RunVdm,
) -> None:
    record_run(Path("killed"), SAVED)
    write_set(Path("shards"), {"train": (1,), "validation": (1,)})
    code, err = run_vdm("train", "resume=killed", "data.path=shards")
    assert code == 2
    assert err == (
        "killed: there is no checkpoint: the run ended before its first one; its command with hydra.run.dir=killed"
        " begins it again\n"
    )


def test_another_run_in_a_folder_with_checkpoints_is_refused(vdm: Vdm) -> None:
    vdm("train", "hydra.run.dir=first", "seed=5", task=record)
    checkpoint_folder(Path("first"), 7).mkdir(parents=True)

    outcome = vdm("train", "hydra.run.dir=first", "seed=6")

    folder = Path("first").absolute()
    assert (outcome.code, outcome.configs) == (2, [])
    assert outcome.err == (
        f"seed=6: {folder} holds a run with 5; choose another folder by hydra.run.dir, or go on with that run by"
        f" resume={folder}\n"
    )


def test_requeued_job_goes_on_though_yamls_were_edited(
    vdm: Vdm, small_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vdm("train", "hydra.run.dir=first", task=record)
    checkpoint_folder(Path("first"), 7).mkdir(parents=True)
    (small_conf / "model" / "small.yaml").write_text("width: 64")
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "vdm", "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)

    (config,) = vdm("train", "hydra.run.dir=first").configs

    assert config.model.width == 32


def test_change_of_the_model_in_a_resumed_run_is_one_line(vdm: Vdm) -> None:
    vdm("train", "hydra.run.dir=first", task=record)

    outcome = vdm("train", "resume=first", "model=large")

    assert outcome.code == 2
    assert outcome.err.startswith("model=large: a resumed run keeps its configuration except for resume, ")
    assert outcome.err.count("\n") == 1


def test_values_that_a_resumed_run_has_need_not_be_given_again(vdm: Vdm, small_conf: Path) -> None:
    train = small_conf / "train.yaml"
    train.write_text(train.read_text().replace("path: ./shards", "path: '???'"))
    vdm("train", "hydra.run.dir=first", "data.path=here", task=record)

    assert vdm("train").err == "data.path: no value given; add data.path=...\n"
    assert vdm("train", "resume=first").configs[0].data.path == "here"


def test_allowed_override_is_taken_and_the_rest_is_as_saved() -> None:
    composed = {"seed": 2, "trainer": {"max_steps": 20, "devices": 4}, "logger": {"kind": "csv"}}

    result = apply_resume_overrides(SAVED, composed, ["trainer.max_steps=20"])

    assert result == {
        **SAVED,
        "trainer": {"max_steps": 20, "devices": 1, "extra": "own"},
        "follows": {},
        "started_in": str(Path.cwd()),
    }


def test_chosen_group_is_taken_whole() -> None:
    composed = {"logger": {"project": "x"}}

    assert apply_resume_overrides(SAVED, composed, ["logger=wandb"])["logger"] == {"project": "x"}
    assert apply_resume_overrides(SAVED, {"logger": None}, ["logger=null"])["logger"] is None
    assert "logger" not in apply_resume_overrides(SAVED, {}, ["~logger"])


def test_key_that_an_older_run_lacks_has_its_default() -> None:
    assert apply_resume_overrides(SAVED, {"new": {"key": 1}, "seed": 9}, [])["new"] == {"key": 1}
    assert apply_resume_overrides(SAVED, {"new": {"key": 1}, "seed": 9}, [])["seed"] == 1


@pytest.mark.parametrize(
    "override", ["seed=1", "+model.width=3", "~model", "experiment=demo", "trainer=cpu", "trainer.max_stepss=1"]
)
def test_other_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_resume_overrides(SAVED, SAVED, [override])

    assert str(caught.value).startswith(f"{override}: a resumed run keeps its configuration")
    assert "\n" not in str(caught.value)


def test_run_of_another_user_is_trusted_with_one_word_of_warning(vdm: Vdm, monkeypatch: pytest.MonkeyPatch) -> None:
    vdm("train", "hydra.run.dir=first", "seed=5", task=record)
    owner = Path("first/config.yaml").stat().st_uid
    warnings: list[str] = []
    monkeypatch.setattr("vdm.cli.resume._log.warning", lambda text, *values: warnings.append(text % values))
    vdm("train", "resume=first")
    assert warnings == []
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    assert vdm("train", "resume=first").code == 0
    (warning,) = warnings
    assert warning.startswith(f"first/config.yaml belongs to user {owner}, and is trusted as yours")


def test_run_that_was_never_trained_here_is_not_resumed_and_nothing_of_it_is_built(vdm: Vdm) -> None:
    record_run(Path("imported"), {"encoder": {"_target_": "os.mkdir", "path": "made"}, "seed": 1})
    outcome = vdm("train", "resume=imported")
    assert outcome.code == 2
    assert outcome.err.startswith("resume=imported: made by vdm import or vdm ema, without training to go on with")
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("key", "value"), [("follows", [1]), ("follows", {"a": {"b": 1}}), ("started_in", 5), ("started_in", ["x"])]
)
def test_damaged_record_of_what_a_run_needs_to_go_on_is_named_in_one_line(vdm: Vdm, key: str, value: object) -> None:
    vdm("train", "hydra.run.dir=first", task=record)
    write_config(Path("first"), {**load_config(Path("first")), key: value})

    outcome = vdm("train", "resume=first")

    assert outcome.code == 2
    assert outcome.err.startswith(f"first/config.yaml: {key}")
    assert outcome.err.count("\n") == 1
