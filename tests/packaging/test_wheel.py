"""The wheel, installed away from the checkout, does what the checkout does."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def run(*command: str | Path, folder: Path) -> str:
    """Run ``command`` in ``folder`` and return what it printed."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, f"{command} failed:\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the console scripts of an environment that has the wheel and, lent by this one, what it depends on.

    The path to this environment's packages does not lead on to the checkout: ``.pth`` files are followed one step only.
    """
    folder = tmp_path_factory.mktemp("installation")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, folder=CHECKOUT)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env/bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, folder=folder)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip()
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def test_packages_and_configuration_come_from_the_wheel(programs: Path, tmp_path: Path) -> None:
    code = (
        "import vdm, data_pipelines; from vdm.config.conf_dir import conf_dir;"
        "print(vdm.__file__, data_pipelines.__file__, conf_dir())"
    )
    paths = run(programs / "python", "-c", code, folder=tmp_path).split()
    assert len(paths) == 3
    assert all(Path(path).is_relative_to(programs.parent) for path in paths)


def test_wheel_carries_each_yaml_of_the_checkout(programs: Path, tmp_path: Path) -> None:
    code = "from vdm.config.conf_dir import conf_dir; print(conf_dir())"
    installed = Path(run(programs / "python", "-c", code, folder=tmp_path).strip())
    assert yamls(installed) == yamls(CHECKOUT / "conf") != []


def test_wheel_carries_all_files_of_pages(programs: Path, tmp_path: Path) -> None:
    code = "import vdm, data_pipelines; print(vdm.__file__, data_pipelines.__file__)"
    packages = [Path(one).parent for one in run(programs / "python", "-c", code, folder=tmp_path).split()]
    for package in packages:
        assert pages(package) == pages(CHECKOUT / package.name) != []


def pages(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for kind in ("html", "css", "js") for path in folder.rglob(f"*.{kind}"))


def yamls(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*.yaml"))


@pytest.mark.parametrize("program", ["vdm", "vdm-data"])
def test_help_lists_the_commands(programs: Path, program: str, tmp_path: Path) -> None:
    assert f"usage: {program} COMMAND" in run(programs / program, "--help", folder=tmp_path)


def test_data_is_built_a_model_trained_and_a_video_sampled(programs: Path, tmp_path: Path) -> None:
    build = ["input=moving_digits", "output=digits", "moving_digits.clips_per_handwriting=1"]
    run(programs / "vdm-data", "build", *build, folder=tmp_path)
    train = ["data.path=digits", "hydra.run.dir=run", "trainer.max_steps=2", "save.every_steps=2"]
    run(programs / "vdm", "train", "experiment=moving_digits", *train, folder=tmp_path)
    sample = ["checkpoint=run", "output=videos", "prompts=['the digit three moves left']", "sampler.num_steps=2"]
    run(programs / "vdm", "sample", *sample, folder=tmp_path)
    assert list((tmp_path / "videos").rglob("*.mp4"))
