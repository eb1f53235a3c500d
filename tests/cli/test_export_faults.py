"""``vdm export`` and ``import`` where files are damaged, lead elsewhere, or can't be written: one line, no remains."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.assembly.small_model import save_run, small_model
from tests.cli.conftest import RunVdm
from tests.models.svd.pipelines import save_pipeline


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("trained") / "run", small_model())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("published"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run's folder that may be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def imported(published: Path, run_vdm: RunVdm, tmp_path: Path) -> Path:
    """A run of published weights, whose other parts are in ``pipeline`` beside it."""
    shutil.copytree(published, tmp_path / "pipeline")
    kept = published.with_name("imported")
    if not kept.exists():
        assert run_vdm("import", "from=pipeline", "to=imported") == (0, "")
        shutil.copytree(tmp_path / "imported", kept)
        (kept / "pipeline").write_text(str(tmp_path / "pipeline"))
    shutil.copytree(kept, tmp_path / "imported", dirs_exist_ok=True)
    config = tmp_path / "imported" / "config.yaml"
    config.write_text(config.read_text().replace((kept / "pipeline").read_text(), str(tmp_path / "pipeline")))
    return tmp_path / "pipeline"


def refused(run_vdm: RunVdm, *arguments: str) -> str:
    code, err = run_vdm(*arguments)
    assert (code, err.count("\n")) == (2, 1), err
    return err


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("versions.json", "[{", "can't be read as JSON"),
        ("versions.json", '[{"packages": {"torch": 2}}]', "0.packages.torch 2: Input should be a valid string"),
        ("evaluation/results.json", "[]", "[]: Input should be a valid dictionary"),
        ("evaluation/results.json", '{"options": 3}', "options 3: Input should be a valid dictionary"),
        ("evaluation/results.json", '{"fvd": 1' + "0" * 400 + "}", "damaged: int too large"),
    ],
)
def test_damaged_record_of_a_run_leaves_no_export(
    run: Path, run_vdm: RunVdm, file: str, content: str, complaint: str
) -> None:
    (run / "evaluation").mkdir()
    (run / file).write_text(content)
    assert refused(run_vdm, "export", "checkpoint=run", "to=given").startswith(f"run/{file}: {complaint}")
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_export_is_repeated_once_the_record_is_mended(run: Path, run_vdm: RunVdm) -> None:
    (run / "versions.json").write_text("[{")
    refused(run_vdm, "export", "checkpoint=run", "to=given")
    (run / "versions.json").unlink()
    assert run_vdm("export", "checkpoint=run", "to=given")[0] == 0


@pytest.mark.parametrize("place", ["LICENSE.md", "vae/config.json", "image_encoder/model.safetensors"])
def test_link_that_leads_out_of_a_downloaded_folder_is_refused_by_name(
    imported: Path, run_vdm: RunVdm, tmp_path: Path, place: str
) -> None:
    secret = tmp_path / "secret"
    shutil.move(imported / place, secret) if (imported / place).exists() else secret.write_text("mine")
    (imported / place).symlink_to(secret)
    err = refused(run_vdm, "export", "checkpoint=imported", "to=given")
    assert err.startswith(f"{imported / place}: a link that leads out of ") or err.startswith(
        f"pipeline/{place}: a link that leads out of "
    )
    assert not (tmp_path / "given").exists()


def test_folder_in_the_hubs_cache_is_exported_though_it_is_made_of_links(
    imported: Path, run_vdm: RunVdm, tmp_path: Path
) -> None:
    model = tmp_path / "hub" / "models--owner--name"
    (model / "blobs").mkdir(parents=True)
    snapshot = model / "snapshots" / "0123"
    shutil.copytree(imported, snapshot)
    for number, path in enumerate([path for path in snapshot.rglob("*") if path.is_file()]):
        blob = model / "blobs" / str(number)
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    code, err = run_vdm("export", "checkpoint=imported", "to=given", f"components={snapshot}")
    assert code == 0, err
    assert not any(path.is_symlink() for path in (tmp_path / "given").rglob("*"))
    (snapshot / "LICENSE.md").unlink()
    (tmp_path / "hub" / "token").write_text("secret")
    (snapshot / "LICENSE.md").symlink_to("../../../token")  # of the cache, but of no model
    err = refused(run_vdm, "export", "checkpoint=imported", "to=again", f"components={snapshot}")
    assert err.startswith(f"{snapshot / 'LICENSE.md'}: a link that leads out of ")


@pytest.mark.parametrize("place", ["LICENSE.md", "vae/extra.json"])
def test_what_is_no_file_in_a_downloaded_folder_is_refused_and_never_waited_for(
    imported: Path, run_vdm: RunVdm, place: str
) -> None:
    (imported / place).unlink(missing_ok=True)
    os.mkfifo(imported / place)
    assert f"{place}: not a regular file" in refused(run_vdm, "export", "checkpoint=imported", "to=given")


def test_too_long_vocabulary_is_refused(imported: Path, run_vdm: RunVdm) -> None:
    with (imported / "vae" / "vocab.json").open("wb") as file:
        file.truncate(1 << 33)  # takes no room
    assert "vocab.json: 8,589,934,592 bytes, more than the " in refused(
        run_vdm, "export", "checkpoint=imported", "to=given"
    )


def test_weights_that_are_no_file_are_refused_and_never_waited_for(imported: Path, run_vdm: RunVdm) -> None:
    weights = imported / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    assert "diffusion_pytorch_model.safetensors: not a regular file" in refused(
        run_vdm, "import", "from=pipeline", "to=again"
    )


@pytest.mark.parametrize(
    ("to", "complaint"),
    [
        ("file/given", "to=file/given: can't be written to: Not a directory"),
        ("file/deep/given", "to=file/deep/given: can't be written to: Not a directory"),
        ("x" * 300, "is longer than paths can be"),
        ("loop/given", "loop"),
    ],
)
def test_place_that_cannot_be_is_one_line(run: Path, run_vdm: RunVdm, tmp_path: Path, to: str, complaint: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    assert complaint in refused(run_vdm, "export", "checkpoint=run", f"to={to}")
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not (shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0):
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("command", [("export", "checkpoint=run"), ("import", "from=given")])
def test_full_disk_is_one_line_and_the_command_is_repeated_once_there_is_room(
    run: Path, run_vdm: RunVdm, small_disk: Path, command: tuple[str, str]
) -> None:
    if command[0] == "import":
        assert run_vdm("export", "checkpoint=run", "to=given")[0] == 0
    assert "No space left on device" in refused(run_vdm, *command, "to=disk/made")
    assert not list(small_disk.iterdir())
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert run_vdm(*command, "to=disk/made")[0] == 0
    assert [path.name for path in small_disk.iterdir()] == ["made"]
