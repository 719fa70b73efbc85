"""A server that answers as the Hugging Face hub does: names, revisions, files, uploads (regular and LFS), refusals.

Its answers follow the hub's HTTP API as the client library huggingface_hub reads it. Xet, the hub's other way of
uploading, is not served.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_writes"


@dataclass
class Repository:
    """One repository: its commits, what branches and tags mean, and who may see it."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(repr([sorted(files.items()), len(self.commits)]).encode()).hexdigest()
        self.commits[digest] = dict(files)
        self.refs["main"] = digest
        return digest


class Hub:
    """The server; within `with`, it answers under `url`.

    Attributes:
        repositories: by owner/name.
        asked: (method, path) of every request.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        hub = self

        class Handler(_Handler):
            served = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """No longer answer: connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, files: dict[str, bytes], **repository: Any) -> str:
        """A commit of a repository, which is made if need be."""
        return self.repositories.setdefault(name, Repository(**repository)).commit(files)

    def fetched(self) -> set[str]:
        """Names of the files whose content was asked for."""
        return {path.rsplit("/", 1)[1] for method, path in self.asked if method == "GET" and "/resolve/" in path}

    def use(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """Make this process's client ask this server, with a cache of its own; as HF_ENDPOINT and HF_HOME do."""
        from huggingface_hub import constants, file_download

        from ichseq.networks.hub import forget

        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):  # the one or the other reads it, by version of the client
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        forget()

    def environment(self, home: Path) -> dict[str, str]:
        """The same for another process."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}


class _Handler(BaseHTTPRequestHandler):
    served: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, content: bytes | dict | list, *, head: bool = False, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, *, head: bool = False) -> None:
        self._answer(status, {"error": code}, head=head, X_Error_Code=code, X_Error_Message=code)

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.served.asked.append((self.command, path))
        return path

    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _files(self, name: str, revision: str, *, head: bool = False) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a revision, or None once it has been refused."""
        repository = self.served.repositories.get(name)
        if repository is None or (repository.private and not self._may_write()):
            self._refuse(404 if self._may_write() else 401, "RepoNotFound", head=head)
            return None
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self._refuse(404, "RevisionNotFound", head=head)
            return None
        return commit, repository.commits[commit]

    def _file(self, name: str, revision: str, file: str, *, head: bool) -> None:
        found = self._files(name, revision, head=head)
        if found is None:
            return
        commit, files = found
        if self.served.repositories[name].gated:
            self._refuse(403, "GatedRepo", head=head)
        elif file not in files:
            self._refuse(404, "EntryNotFound", head=head)
        else:
            etag = f'"{hashlib.sha256(files[file]).hexdigest()}"'
            self._answer(200, files[file], head=head, ETag=etag, X_Repo_Commit=commit)

    def do_HEAD(self) -> None:
        path = self._path()
        if place := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*place.groups(), head=True)
        else:
            self._refuse(404, "EntryNotFound", head=True)

    def do_GET(self) -> None:
        path = self._path()
        if place := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*place.groups(), head=False)
        elif place := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            name, revision = place.groups()
            if (found := self._files(name, revision or "main")) is not None:
                repository = self.served.repositories[name]
                siblings = [{"rfilename": file, "size": len(of), "blobId": _blob(of)} for file, of in found[1].items()]
                self._answer(200, {"id": name, "sha": found[0], "private": repository.private, "tags": [],
                                   "gated": "auto" if repository.gated else False, "siblings": siblings})  # fmt: skip
        elif place := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/.*)?", path):
            if (found := self._files(*place.groups())) is not None:
                listed = [{"type": "file", "path": file, "size": len(of), "oid": _blob(of)} for file, of in
                          found[1].items()]  # fmt: skip
                self._answer(200, listed)
        else:
            self._refuse(404, "EntryNotFound")

    def do_PUT(self) -> None:
        digest, content = self._path().rsplit("/", 1)[1], self._body()
        if hashlib.sha256(content).hexdigest() != digest:
            self._refuse(400, "BadDigest")
        else:
            self.served.large[digest] = content
            self._answer(200, {})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self) -> None:
        path, body = self._path(), self._body()
        if path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif not self._may_write():
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif place := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            modes = [{"path": one["path"], "shouldIgnore": False,
                      "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"}
                     for one in json.loads(body)["files"]]  # fmt: skip
            self._answer(200, {"files": modes})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [{"oid": one["oid"], "size": one["size"],
                        "actions": {"upload": {"href": f"{self.served.url}/large/{one['oid']}"}}}
                       for one in json.loads(body)["objects"]]  # fmt: skip
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif place := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(place[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._refuse(404, "EntryNotFound")

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.served.repositories:
            self._answer(409, {"error": "You already created this model repo", "url": f"{self.served.url}/{name}"})
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))  # by version of the client
        self.served.put(name, {".gitattributes": b""}, private=private)
        self._answer(200, {"url": f"{self.served.url}/{name}", "id": name, "name": name})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self.served.repositories[name]
        files = dict(repository.commits[repository.refs["main"]])
        for line in lines:
            key, of = line["key"], line["value"]
            if key == "file":
                files[of["path"]] = base64.b64decode(of["content"])
            elif key == "lfsFile":
                files[of["path"]] = self.served.large[of["oid"]]
            elif key == "deletedFile":
                del files[of["path"]]
        commit = repository.commit(files)
        self._answer(
            200, {"success": True, "commitOid": commit, "commitUrl": f"{self.served.url}/{name}/commit/{commit}"}
        )


def _blob(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
