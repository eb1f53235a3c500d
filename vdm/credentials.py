"""Leaves credentials out of what is recorded, shown or sent on: those in URLs, and values of keys that name a secret.

A URL loses its user and password (``https://***@host``; of other protocols only the password, since the user of
``abfs://container@account`` is a container), and the value of each parameter of its query, which may be a token or a
signature. A key names a secret if its last word is ``password``, ``token``, ``secret``, ``api_key`` or the like.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

HIDDEN = "***"
"""What stands for a credential."""
_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*)://([^\s/?#'\"<>|]+)@")
_S3_USER = re.compile(r"(?i)\b(s3)://([^\s/?#'\"<>|:,]+:[^\s'\"<>|@,]+)@")
"""Secret keys of AWS may contain slashes."""
_QUERY = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s?#'\"<>]*\?)([^\s#'\"<>]+)")
_PARAMETER = re.compile(r"=[^&,;{}\[\]]*")
_SECRET = r"(?:password|passwd|passphrase|secret|token|credentials?|(?:api|access|secret|private|auth|account)_?key)"
_SECRET_KEY = re.compile(rf"(?i)(?:.*[._-])?{_SECRET}")
_SECRET_VALUE = re.compile(
    rf"(?i)(?<![a-z0-9])({_SECRET})(['\"]?:\s+|=)(\"[^\"]*\"|'[^']*'|[^\s'\"&#]*[^\s'\"&#,;}}\])])"
)
_SECRET_ARGUMENT = re.compile(rf"(?i)'([\w.+@/~-]*{_SECRET})=((?:[^']|'\"'\"')*)'")
"""An argument of a command that shlex has quoted as a whole."""
_BEARER = re.compile(r"(?i)\b(bearer|basic) +[^\s'\"]{8,}")
_SETTING = re.compile(r"true|false|null|[\d.]+")
"""Values of settings whose name ends in ``token``, such as ``model.one_token=true``."""
_WITHOUT_USER = frozenset({"http", "https", "ftp"})
"""Protocols whose users are part of the credentials, such as ``https://TOKEN@host``."""

Value = TypeVar("Value")


def without_credentials(value: Value) -> Value:
    """Return a text, or plain values with texts in them, without credentials; a call of the result changes nothing."""
    found: Any = _without(value)
    return found


def _without(value: Any) -> Any:
    if isinstance(value, str):
        return _hidden(value)
    if isinstance(value, Mapping):
        return {_without(key): HIDDEN if _is_secret(key, one) else _without(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_without, value))
    return value


def _is_secret(key: object, value: object) -> bool:
    if value is None or isinstance(value, bool) or not isinstance(key, str) or _SECRET_KEY.fullmatch(key) is None:
        return False
    return not _is_setting(key, str(value))


def _is_setting(key: str, value: str) -> bool:
    return key.lower().endswith("token") and _SETTING.fullmatch(value) is not None


def _hidden(text: str) -> str:
    if "://" in text:
        text = _USER.sub(_without_user, _S3_USER.sub(_without_user, text))
        text = _QUERY.sub(lambda found: found[1] + _PARAMETER.sub(f"={HIDDEN}", found[2]), text)
    text = _SECRET_ARGUMENT.sub(_without_argument, text)
    text = _BEARER.sub(lambda found: f"{found[1]} {HIDDEN}", text)
    return _SECRET_VALUE.sub(_without_value, text)


def _without_value(found: re.Match[str]) -> str:
    return found[0] if _is_setting(found[1], found[3]) else f"{found[1]}{found[2]}{HIDDEN}"


def _without_argument(found: re.Match[str]) -> str:
    return found[0] if _is_setting(found[1], found[2]) else f"'{found[1]}={HIDDEN}'"


def _without_user(found: re.Match[str]) -> str:
    protocol, (user, colon, _) = found[1], found[2].partition(":")
    if protocol.lower() in _WITHOUT_USER:
        return f"{protocol}://{HIDDEN}@"
    return f"{protocol}://{user}{f':{HIDDEN}' if colon else ''}@"
