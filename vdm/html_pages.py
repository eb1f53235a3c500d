"""Self-contained HTML pages: data that no text can break out of, and a policy under which nothing foreign runs."""

import base64
import hashlib
import json
from collections.abc import Iterable


def security_policy(scripts: Iterable[str], styles: Iterable[str] | None) -> str:
    """Return the content security policy of a page: it requests nothing, and runs its own scripts alone.

    Should some text escape the escaping, it could neither run nor fetch anything.

    Args:
        scripts: Contents of the page's script elements, before anything from outside is put into the page.
        styles: Likewise of its style elements; None allows any style, for libraries that make some at run time.
    """
    own = "script-src " + " ".join(map(_checksum, scripts))
    style = "style-src " + ("'unsafe-inline'" if styles is None else " ".join(map(_checksum, styles)))
    media = "img-src data: blob:; media-src data: blob:"
    return f"default-src 'none'; {own}; {style}; {media}; base-uri 'none'; form-action 'none'"


def embedded_json(value: object) -> str:
    """Return JSON for an element ``<script type="application/json">``, which no text in it can end.

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # in ASCII, control characters escaped
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _checksum(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
