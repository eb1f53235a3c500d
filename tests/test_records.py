import os
from pathlib import Path

import pytest
from typing_extensions import TypedDict

from vdm.records import read_record


class Entry(TypedDict):
    name: str
    sizes: list[int]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "can't be read as JSON: Expecting value"),
        ('{"a": {"name": "x", "sizes": [1', "can't be read as JSON: "),
        ("[" * 100_000, "can't be read as JSON: "),
        ('{"a": {"name": "x", "sizes": [' + "1" * 5000 + "]}}", "can't be read as JSON: "),
        ("[]", "[]: Input should be a valid dictionary"),
        ('{"a": {"name": "x"}}', "a.sizes is missing"),
        ('{"a": {"name": "x", "sizes": [1, true]}}', "a.sizes.1 True: Input should be a valid integer"),
        ('{"a": {"name": null, "sizes": []}}', "a.name None: Input should be a valid string"),
    ],
    ids=["empty", "cut", "deep", "huge number", "list", "missing", "bool for int", "null"],
)
def test_record_of_another_form_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError) as told:  # noqa: PT011 - the message is compared below
        read_record(path, dict[str, Entry])
    assert str(told.value).startswith(f"{path}: {complaint}")
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 300


def test_record_keeps_what_its_form_does_not_list(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": {"name": "x", "sizes": [1], "more": NaN}}')
    assert read_record(path, dict[str, Entry])["a"].keys() == {"name", "sizes", "more"}


def test_what_is_no_file_is_one_line_and_never_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "long").write_text('"' + "x" * 100 + '"')
    for name in ("fifo", "folder", "long", "absent"):
        with pytest.raises(ValueError, match=rf"^{tmp_path / name}: "):
            read_record(tmp_path / name, str, max_bytes=99)
