"""The part of the Hugging Face hub's protocol that reading a data set needs, on loopback.

Repository, listing in pages, sizes and ranges of files, as huggingface_hub asks for them; the files are real.
"""

import json
from urllib.parse import parse_qs, unquote, urlsplit

from tests.data.http_server import Failure, Handler

PAGE = 5
"""Entries of a listing that come at once; the hub's are 1,000."""


class HubHandler(Handler):
    """Serves the folder's subfolders as those of the data set ``someone/clips``."""

    def _serve(self, failure: Failure | None, with_body: bool) -> None:
        url = urlsplit(self.path)
        files, api = "/datasets/someone/clips/resolve/main/", "/api/datasets/someone/clips"
        if url.path.startswith(files):
            self.path = unquote(url.path.removeprefix(files))
            return super()._serve(failure, with_body)
        if url.path.startswith(f"{api}/tree/main/"):
            return self._list(unquote(url.path.removeprefix(f"{api}/tree/main/")), parse_qs(url.query))
        if url.path in (api, f"{api}/revision/main"):
            return self._send_json({"id": "someone/clips", "sha": "0" * 40, "siblings": [], "tags": []})
        return self._refuse("RepoNotFound" if not url.path.startswith(api) else "EntryNotFound")

    def _list(self, path: str, query: dict[str, list[str]]) -> None:
        folder, start = self.server.folder / path, int(query.get("cursor", ["0"])[0])
        if not folder.is_dir():
            return self._refuse("EntryNotFound")
        entries = [self._entry(f"{path}/{file.name}") for file in sorted(folder.iterdir())]
        following = f"{self.server.url}{urlsplit(self.path).path}?cursor={start + PAGE}"
        more = {"Link": f'<{following}>; rel="next"'} if start + PAGE < len(entries) else {}
        return self._send_json(entries[start : start + PAGE], more)

    def _entry(self, path: str) -> dict[str, object]:
        file = self.server.folder / path
        if file.is_dir():
            return {"type": "directory", "path": path, "oid": "0" * 40}
        return {"type": "file", "path": path, "size": file.stat().st_size, "oid": "0" * 40}

    def _send_json(self, answer: object, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"} | (headers or {}))

    def _refuse(self, code: str) -> None:
        self._send(404, b"", {"X-Error-Code": code, "X-Error-Message": "not found"})
