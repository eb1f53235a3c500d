import logging
import os

import pytest

from vdm.text import PrintableFormatter, decode_text, file_stem, html_text, printable, well_formed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "plain \u00e9 \u4e00 \U0001f468\u200d\U0001f469 \u00a0",
            "plain \u00e9 \u4e00 \U0001f468\u200d\U0001f469 \u00a0",
        ),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\nb\r\tc\x7f\x9b", r"a\nb\r\tc\x7f\x9b"),
        ("\u202egpj.exe\u2066\u200f", r"\u202egpj.exe\u2066\u200f"),
        ("a\u2028b\u2029c\ufeff", r"a\u2028b\u2029c\ufeff"),
        ("\ud800 \udce9", "\ufffd \ufffd"),
        (os.fsdecode(b"caf\xe9"), "caf\ufffd"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_a_terminal_only_shows_text(text: str, expected: str) -> None:
    shown = printable(text)
    assert shown == expected
    shown.encode()
    assert len(shown.splitlines()) == 1


def test_length_is_bounded() -> None:
    assert printable("x" * 100, 10) == "x" * 9 + "\u2026"
    assert len(printable("x" * 10**6)) == 10_000


def test_well_formed_text_keeps_all_but_half_characters() -> None:
    assert well_formed("a\n\u202e\ud83d") == "a\n\u202e\ufffd"


def test_text_of_a_page_ends_no_element_and_no_attribute() -> None:
    shown = html_text("</script>\n<b title='a' onclick=\"x\">&\x1b")
    assert shown == "&lt;/script&gt; &lt;b title=&#x27;a&#x27; onclick=&quot;x&quot;&gt;&amp;\\x1b"


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("-rf ~", "rf"),
        (".hidden", "hidden"),
        ("CON", "con_"),
        ("lpt1", "lpt1_"),
        ("console", "console"),
        ("a\nb\x1b[31m\u202e\0", "a-b-31m"),
        ("x" * 10**6, "x" * 20),
        ("\ud800", ""),
        ("\u4e00" * 30, "\u4e00" * 20),
    ],
)
def test_a_part_of_a_file_name_is_nothing_else(text: str, stem: str) -> None:
    assert file_stem(text, 20) == stem


def _record(name: str, message: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "", 0, "%s", (message,), None)


def test_a_log_record_stays_in_its_line() -> None:
    formatter = PrintableFormatter("%(levelname)s: %(message)s")
    assert formatter.format(_record("vdm.data.quarantine", "a\nINFO: \x1b[2J")) == r"WARNING: a\nINFO: \x1b[2J"
    assert formatter.format(_record("lightning", "a\ntable \x1b")) == "WARNING: a\ntable \\x1b"  # as libraries mean it


@pytest.mark.parametrize(
    ("codec", "name"),
    [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16"), ("cp1252", "cp1252")],
)
def test_text_is_decoded_by_its_mark_or_its_bytes(codec: str, name: str) -> None:
    assert decode_text("caf\u00e9 \u201copen\u201d".encode(codec)) == ("caf\u00e9 \u201copen\u201d", name)
    assert decode_text("\ufeffa".encode("utf-16-be")) == ("a", "UTF-16")


@pytest.mark.parametrize("data", ["abc".encode("utf-16-le"), b"\x81", b"\xff\xfea", b"\xff\xd8\0\xff"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^is no text in UTF-8, UTF-16 with a byte-order mark, or cp1252$"):
        decode_text(data)
