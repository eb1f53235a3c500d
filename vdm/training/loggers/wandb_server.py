"""Whether the server of Weights & Biases can be reached."""

import os
import urllib.error
import urllib.request
from http.client import HTTPException

REACHED_SECONDS = 5.0
"""How long it may take to answer."""


def unreachable() -> str | None:
    """Return why the server can't be reached, if so; any answer counts as reached."""
    import wandb

    url = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    if os.environ.get("WANDB_MODE", "online") != "online":
        return None
    try:
        urllib.request.urlopen(url, timeout=REACHED_SECONDS).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError, HTTPException) as error:  # the last: it speaks no HTTP, or the address is none
        return f"{url} can't be reached: {getattr(error, 'reason', None) or error}"
    return None
