import json
from pathlib import Path

import pytest

from vdm.files import replacing, write_file, write_json


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a"
    for content in (b"old", b"new"):
        with replacing(path, durable) as file:
            file.write(content[:1])
            file.flush()
            assert not path.exists() or path.read_bytes() == b"old"
            file.write(content[1:])
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def write_and_fail(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"new")
        raise OSError("full")


def test_after_an_error_the_old_file_is_there_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": "\u00e4"})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    with pytest.raises(OSError, match="full"):
        write_and_fail(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": "\u00e4"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_folders_that_lead_to_a_text_are_made(tmp_path: Path) -> None:
    for text in ("old", "n\u00e9w"):
        write_file(tmp_path / "run" / "config.yaml", text)
    assert (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8") == "n\u00e9w"
    assert len(list((tmp_path / "run").iterdir())) == 1


def test_json_is_readable_but_for_what_would_do_more_than_be_seen(tmp_path: Path) -> None:
    content = {"caf\u00e9 \u4e00": '\x1b[2J\x7f\x9b \u202e\u2028 \ud800 \\ "'}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "caf\u00e9 \u4e00" in text
    assert text.isprintable()
