"""Options of ``vdm sample`` that a checkpoint's model declares, and what is said where it has none."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.assembly.small_model import save_config
from tests.cli.conftest import RunVdm
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.cli.options.sample import SampleOptions
from vdm.cli.overrides import readable
from vdm.config.conf_dir import conf_dir
from vdm.config.options import options_of
from vdm.config.static_signatures import read_declared
from vdm.models.svd.conditioner import MicroConditioning

SVD = {"model__conditioner": {"_target_": "vdm.models.svd.conditioner.SVDConditioner"}}
OF_SVD = {"fps", "motion_bucket_id", "noise_aug_strength"}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``svd`` and ``unet``, of which there is but the configuration."""
    save_config(tmp_path / "svd", **SVD)
    save_config(tmp_path / "unet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("runs")
def test_options_are_those_of_the_command_and_of_the_checkpoint_s_model() -> None:
    general = {option.key for option in options_of(SampleOptions)}
    for told, added in (
        ({"checkpoint": "svd"}, OF_SVD),
        ({"checkpoint": "unet"}, set()),
        ({"checkpoint": "no"}, set()),
    ):
        completed = {option.key for option in options_of(SampleOptions.completed(told))}
        assert completed == general | added


def test_class_of_a_declared_attribute_is_read_from_the_source() -> None:
    declared = read_declared("vdm.models.svd.conditioner.SVDConditioner", "options")
    assert declared is not None
    assert declared.named == dict.fromkeys(OF_SVD, False)
    nothing = read_declared("vdm.models.embedding_conditioner.EmbeddingConditioner", "options")
    assert nothing is not None
    assert nothing.named == {}
    assert read_declared("torch.nn.Linear", "options") is None


def test_a_run_from_elsewhere_can_not_have_other_source_read(tmp_path: Path) -> None:
    hostile = "class Options:\n    x: open('made', 'w')\n\nclass Conditioner:\n    options: Options\n"
    (tmp_path / "hostile.py").write_text(hostile)
    save_config(tmp_path / "run", model__conditioner={"_target_": f"vdm.{tmp_path}/hostile.Conditioner"})

    assert SampleOptions.completed({"checkpoint": str(tmp_path / "run")}).__dataclass_fields__.keys() == (
        SampleOptions.__dataclass_fields__.keys()
    )
    assert read_declared(f"vdm.{tmp_path}/hostile.Conditioner", "options") is None
    assert read_declared(f"vdm.{'a' * 300}.Conditioner", "options") is None


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_a_model_s_option_is_added_to_what_the_yaml_has(sweep: list[str]) -> None:
    for checkpoint in ("svd", "'svd'"):
        given = [*sweep, f"checkpoint={checkpoint}", "motion_bucket_id=1", "+noise_aug_strength=2", "fps=7"]
        assert readable(given, SampleOptions, conf_dir())[-3:] == [
            "+motion_bucket_id=1",
            "+noise_aug_strength=2",
            "fps=7",
        ]
    swept = ["-m", "checkpoint=svd,unet", "motion_bucket_id=1,2"]
    assert readable(swept, SampleOptions, conf_dir())[-1] == "+motion_bucket_id=1,2"


@pytest.mark.usefixtures("runs")
def test_a_model_s_options_are_shown_with_the_others(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["vdm", "sample", "checkpoint=svd", "--cfg", "job"])
    run_program("vdm", COMMANDS)

    assert "\nmotion_bucket_id: null\nnoise_aug_strength: null\n" in capfd.readouterr().out


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("checkpoint=unet motion_bucket_id=2", "motion_bucket_id: the model of unet has no such option; it has: none"),
        ("checkpoint=unet +motion_bucket_id=2", "motion_bucket_id: the model of unet has no such option; it has: none"),
        (
            "checkpoint=svd motion_bucket=2",
            "motion_bucket: the model of svd has no such option: did you mean 'motion_bucket_id'?; it has: fps,"
            " motion_bucket_id, noise_aug_strength",
        ),
        ("checkpoint=svd promts=2", "Unknown key 'promts': did you mean 'prompts'? (allowed: "),
        ("checkpoint=svd motion_bucket_id=x", "motion_bucket_id=x: must be a number, at least 0 and at most 255, or"),
        ("-m checkpoint=svd motion_bucket_id=2,256", "motion_bucket_id=256: must be a number, at least 0 and at most"),
        ("checkpoint=svd fps=0.5", "fps=0.5: must be a number, at least 1, or null"),
        ("checkpoint=no motion_bucket_id=2", "no: not a run: there is no config.yaml, nor such a folder"),
    ],
)
def test_what_a_model_does_not_take_is_one_line(run_vdm: RunVdm, arguments: str, message: str) -> None:
    code, err = run_vdm("sample", *arguments.split())

    assert code == 2
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_options_of_another_family_are_refused_before_torch_is_imported(runs: Path) -> None:
    code = (
        "import sys; sys.argv = ['vdm', 'sample', 'checkpoint=unet', 'motion_bucket_id=200']\n"
        "from vdm.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=runs)

    message = "motion_bucket_id: the model of unet has no such option; it has: none\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_the_command_and_the_model_agree_on_ranges() -> None:
    for wrong in ({"motion_bucket_id": 256}, {"motion_bucket_id": -1}, {"fps": 0.5}, {"noise_aug_strength": -0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MicroConditioning(**wrong)
