import pytest

from vdm.data.captions import MAX_CAPTION, captions_of


@pytest.mark.parametrize(
    ("caption", "text", "expected"),
    [
        ("a dog", b"a cat", ("a dog",)),
        ("", b" a cat\n", ("a cat",)),
        (" \n", b"a cat", ("a cat",)),
        (None, b"a cat", ("a cat",)),
        (float("nan"), b"", ()),
        ([], b"a cat", ("a cat",)),
        (["a dog", "", "a puppy"], b"", ("a dog", "a puppy")),
        (12, b"", ("12",)),
        ("x" * (MAX_CAPTION + 1), b"", ("x" * MAX_CAPTION,)),
    ],
    ids=str,
)
def test_captions_are_those_of_the_json_or_else_the_text(
    caption: object, text: bytes, expected: tuple[str, ...]
) -> None:
    assert captions_of({"caption": caption}, text) == expected


@pytest.mark.parametrize("caption", [{"en": "a dog"}, ["a dog", 3], [["a dog"]], [None], True], ids=str)
def test_what_is_no_caption_is_named(caption: object) -> None:
    with pytest.raises(ValueError, match=r"its caption is .*, where a text, a number or a list of texts is allowed"):
        captions_of({"caption": caption}, b"")
