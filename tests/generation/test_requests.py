from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.odd_files import ODD_FILES
from vdm.generation.requests import load_image, read_prompts, resolve_labels


def test_prompts_given_directly() -> None:
    assert read_prompts(["a dog", ""], None) == ["a dog", ""]
    assert read_prompts("a dog, and a cat", None) == ["a dog, and a cat"]
    assert read_prompts(None, None) is None


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_prompts_of_a_file_are_its_lines_that_are_not_blank(tmp_path: Path, mark: bytes) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(mark + "a dog\r\n\n  ein Hündchen \n \t\n一只狗".encode())

    assert read_prompts(None, str(file)) == ["a dog", "ein Hündchen", "一只狗"]


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe\x00"])
def test_prompts_file_without_captions_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ValueError, match=rf"^prompts_file={file}: ") as caught:
        read_prompts(None, str(file))
    assert "\n" not in str(caught.value)


def test_prompts_come_from_one_place_and_are_texts() -> None:
    with pytest.raises(ValueError, match=r"^prompts_file: give either prompts or prompts_file, not both$"):
        read_prompts(["a"], "file")
    with pytest.raises(ValueError, match=r"^prompts=\[\]: must be a list of one or more texts"):
        read_prompts([], None)


NAMES = ["cat", "dog", "bird"]


@pytest.mark.parametrize(
    ("labels", "indices"),
    [(None, None), ("dog", [1]), (2, [2]), (["bird", 0, "bird"], [2, 0, 2])],
)
def test_classes_are_given_by_index_or_name(
    labels: int | str | list[int | str] | None, indices: list[int] | None
) -> None:
    assert resolve_labels(labels, NAMES, 3) == indices


@pytest.mark.parametrize("label", ["cow", -1, 3, "1"])
def test_unknown_class_is_named_beside_those_that_there_are(label: int | str) -> None:
    with pytest.raises(ValueError, match=rf"^labels={label}: no such class; there are cat, dog, bird$"):
        resolve_labels([0, label], NAMES, 3)


def test_unknown_class_without_names_is_told_the_range() -> None:
    with pytest.raises(ValueError, match=r"^labels=7: no such class; there are 0 to 2$"):
        resolve_labels(7, [], 3)


def test_model_without_classes_takes_none() -> None:
    with pytest.raises(ValueError, match=r"^labels=dog: the model was trained without classes"):
        resolve_labels("dog", [], 0)
    assert resolve_labels(None, [], 0) is None


def _save(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def _pixel(frame: torch.Tensor, row: int = 0, column: int = 0) -> list[int]:
    return frame[0, :, row, column].tolist()


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (200, 100, 50), [200, 100, 50]),
        ("L", 77, [77, 77, 77]),
        ("1", 1, [255, 255, 255]),
        ("RGBA", (200, 100, 50, 255), [200, 100, 50]),
        ("RGBA", (200, 100, 50, 0), [255, 255, 255]),
        ("LA", (77, 255), [77, 77, 77]),
        ("I;16", 65535, [255, 255, 255]),
        ("I;16", 128 * 257, [128, 128, 128]),
    ],
)
def test_every_kind_of_picture_becomes_rgb(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], expected: list[int]
) -> None:
    frame = load_image(_save(tmp_path / "picture.png", Image.new(mode, (10, 8), colour)), 4, 6)

    assert (frame.shape, frame.dtype) == ((1, 3, 4, 6), torch.uint8)
    assert _pixel(frame) == _pixel(frame, 3, 5) == expected


def test_palette_with_transparency_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.paste(1, (0, 0, 2, 4))
    frame = load_image(_save(tmp_path / "picture.png", picture, transparency=0), 4, 4)

    assert _pixel(frame, 0, 0) == [40, 50, 60]
    assert _pixel(frame, 0, 3) == [255, 255, 255]


def test_cmyk_and_float_pictures_are_read(tmp_path: Path) -> None:
    cmyk = load_image(_save(tmp_path / "c.tif", Image.new("CMYK", (4, 4), (0, 255, 255, 0))), 4, 4)
    ramp = Image.fromarray(np.linspace(0, 0.5, 16, dtype=np.float32).reshape(4, 4))
    floating = load_image(_save(tmp_path / "f.tif", ramp), 4, 4)

    assert _pixel(cmyk) == [255, 0, 0]
    assert (_pixel(floating), _pixel(floating, 3, 3)) == ([0, 0, 0], [255, 255, 255])


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    """EXIF orientation 6: the camera was turned, rows of the file are columns seen from the right."""
    picture = Image.new("RGB", (4, 2), "black")
    picture.paste("red", (0, 0, 2, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    frame = load_image(_save(tmp_path / "picture.png", picture, exif=exif), 4, 2)

    assert _pixel(frame, 0, 0) == _pixel(frame, 1, 1) == [255, 0, 0]
    assert _pixel(frame, 2, 0) == _pixel(frame, 3, 1) == [0, 0, 0]


def test_the_centre_is_cut_out(tmp_path: Path) -> None:
    picture = Image.new("RGB", (12, 4), "black")
    picture.paste("white", (4, 0, 8, 4))

    assert (load_image(_save(tmp_path / "picture.png", picture), 4, 4) == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_the_smallest_pictures_fill_the_frame(tmp_path: Path, size: tuple[int, int]) -> None:
    frame = load_image(_save(tmp_path / "picture.png", Image.new("RGB", size, (9, 8, 7))), 16, 24)

    assert frame.shape == (1, 3, 16, 24)
    assert (frame == torch.tensor([9, 8, 7], dtype=torch.uint8)[:, None, None]).all()


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "flipped", "folder", "missing"])
def test_what_is_no_picture_is_named_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = _save(tmp_path / "whole.png", Image.fromarray(noise)).read_bytes()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        flipped = content[:12] + b"\xff\xff" + content[14:]
        path.write_bytes({"text": b"hello", "empty": b"", "cut": content[:2000], "flipped": flipped}[damage])

    with pytest.raises(ValueError, match=rf"^image={path}: (no such file|can't be read as a picture: .+)$") as caught:
        load_image(path, 8, 8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    ODD_FILES[kind](tmp_path / "odd")
    with pytest.raises(ValueError, match=rf"^image=.*: can't be read as a picture: is {kind}, not a file$"):
        load_image(tmp_path / "odd", 16, 16)
    with pytest.raises(ValueError, match=rf"^prompts_file=.*: can't be read: is {kind}, not a file$"):
        read_prompts(None, str(tmp_path / "odd"))


def test_a_picture_of_too_many_pixels_is_one_line(tmp_path: Path) -> None:
    Image.new("1", (8192, 8193)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"^image=.*a.png: can't be read as a picture: a picture of 8193x8192 pixels"):
        load_image(tmp_path / "a.png", 16, 16)
