"""Sanitizing of untrusted text for terminals, logs, HTML pages and file names."""

import codecs
import logging
import re
import unicodedata
from html import escape

MAX_LINE = 10_000
"""Greatest length of a line on the terminal or in a log."""
_SHOWN_AS_THEY_ARE = frozenset("\u00ad\u200c\u200d")
"""Invisible characters that spelling needs: the soft hyphen, and the joiners of Persian, Indic scripts and emoji."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""Device names of Windows, with any suffix."""


def well_formed(text: str) -> str:
    """Return text that can be encoded: lone surrogates become U+FFFD.

    Surrogates stand for bytes of file names that are not UTF-8, and JSON can escape them too.
    """
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def decode_text(data: bytes | bytearray | memoryview) -> tuple[str, str]:
    """Return text and its encoding: UTF-8, UTF-16 if a byte-order mark says so, else cp1252 (of Windows).

    Byte-order marks are left out.

    Raises:
        ValueError: In a few words, if the data are in none of these encodings.
    """
    is_marked = bytes(data[:2]) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    for name, codec in (("UTF-16", "utf-16"),) if is_marked else (("UTF-8", "utf-8-sig"), ("cp1252", "cp1252")):
        try:
            text = str(data, codec)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:  # as UTF-16 without a mark has, and what is no text
            return text, name
    raise ValueError("is no text in UTF-8, UTF-16 with a byte-order mark, or cp1252")


def printable(text: object, max_chars: int = MAX_LINE) -> str:
    r"""Return text as one line that is safe to print.

    Control characters, line ends, marks of writing direction and other invisible characters are escaped as in Python
    (``\x1b``, ``\u202e``); lone surrogates become U+FFFD.

    Args:
        text: The text, or an object to be converted by ``str``.
        max_chars: Longer text is cut and ends in an ellipsis.
    """
    text = well_formed(str(text))
    if len(text) > max_chars:
        text = f"{text[: max_chars - 1]}\u2026"
    if text.isprintable():
        return text
    return "".join(char if _is_shown(char) else char.encode("unicode_escape").decode() for char in text)


def _is_shown(char: str) -> bool:
    return char.isprintable() or char in _SHOWN_AS_THEY_ARE or unicodedata.category(char) == "Zs"


def html_text(text: object, max_chars: int = MAX_LINE) -> str:
    """Return text escaped for HTML, in an element or a quoted attribute."""
    return escape(printable(" ".join(str(text).split()), max_chars), quote=True)


def file_stem(text: str, max_chars: int) -> str:
    """Return the words of a text for a file name, in lower case and joined by dashes; empty without words.

    The result is safe on every file system: it has no separators, dots or spaces, does not begin or end with a dash,
    and is no device name of Windows.

    Args:
        text: The text.
        max_chars: Length of the name; a character takes up to four bytes.
    """
    stem = "-".join(re.findall(r"\w+", text[: 4 * max_chars].lower()))[:max_chars].strip("-")
    return f"{stem}_" if _RESERVED.match(stem) else stem


class PrintableFormatter(logging.Formatter):
    """Formats log records with their control characters escaped."""

    _OWN = ("vdm", "data_pipelines")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Return the record as one line; records of libraries may have several."""
        text = super().formatMessage(record)
        lines = [text] if record.name.partition(".")[0] in self._OWN else text.split("\n")
        return "\n".join(map(printable, lines))

    def formatException(self, ei: object) -> str:  # noqa: N802 (logging's name)
        """Return a traceback."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))  # pyright: ignore[reportArgumentType]
