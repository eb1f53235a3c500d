"""Libraries speak to the log, this project and the user's own code to the terminal too."""

import logging
import sysconfig
import warnings
from pathlib import Path

import pytest

import vdm.logs
from vdm.logs import NotOfLibraries, library_warnings_logged, quieten_libraries

PACKAGES = Path(sysconfig.get_path("purelib"))


@pytest.mark.parametrize(
    ("name", "file", "is_shown"),
    [
        ("vdm.cli.train", PACKAGES / "vdm/cli/train.py", True),
        ("data_pipelines.build", "/code/data_pipelines/build.py", True),
        ("my_network", "/home/me/my_network.py", True),
        ("gcsfs", PACKAGES / "gcsfs/retry.py", False),
        ("huggingface_hub.utils", "/usr/lib/python3/dist-packages/huggingface_hub/utils.py", False),
        ("asyncio", Path(sysconfig.get_path("stdlib")) / "asyncio/base_events.py", False),
        ("py.warnings", "/code/vdm/logs.py", False),
    ],
)
def test_records_of_libraries_do_not_reach_the_terminal(name: str, file: str, is_shown: bool) -> None:
    record = logging.LogRecord(name, logging.ERROR, str(file), 1, "said", (), None)
    assert NotOfLibraries().filter(record) is is_shown


@pytest.mark.parametrize(
    ("file", "is_logged"),
    [
        (PACKAGES / "torch/x.py", True),
        (Path(vdm.logs.__file__).parent / "cli/train.py", True),
        ("/home/me/net.py", False),
    ],
)
def test_warnings_of_libraries_are_logged_and_others_printed(
    caplog: pytest.LogCaptureFixture, file: Path | str, is_logged: bool
) -> None:
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        with library_warnings_logged():
            warnings.warn_explicit("old", UserWarning, str(file), 7)
    assert [record.getMessage() for record in caplog.records] == [f"{file}:7: UserWarning: old"] * is_logged
    assert len(printed) == (not is_logged)


def test_user_may_ask_libraries_for_more() -> None:
    variables = {"TRANSFORMERS_VERBOSITY": "info"}
    quieten_libraries(variables)
    assert variables["TRANSFORMERS_VERBOSITY"] == "info"
    assert variables["DIFFUSERS_VERBOSITY"] == "error"
