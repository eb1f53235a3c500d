"""``vdm`` in a process that writes down each address that it connects to or looks up, into the file ``WATCHED``."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run ``vdm`` under an audit hook."""
    file = Path(os.environ["WATCHED"])

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            with file.open("a") as opened:
                opened.write(f"{event} {arguments[-1] if event == 'socket.connect' else arguments}\n")

    sys.addaudithook(note)
    from vdm.cli.main import main as vdm

    vdm()


if __name__ == "__main__":
    main()
