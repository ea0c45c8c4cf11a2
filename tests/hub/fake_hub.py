"""A small in-memory stand-in for the Hub over HTTP, on the loopback address.

It knows what pushing and loading a model or dataset needs. It is a double: it does not show token scopes, rate limits, xet
storage or the real validation of cards.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

TOKEN = "hf_test"


class FakeHub:
    """Start it, point HF_ENDPOINT at `.url`, look into `.repos`."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}  # "models/owner/name" -> path -> content
        self.large: dict[str, bytes] = {}  # sha256 -> content
        self.commits: dict[str, int] = {}
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, code: int, content: bytes | dict | list = b"", **headers: str) -> None:
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers.setdefault("Content-Type", "application/json")
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _missing(self, code: str) -> None:
        self._send(404, {"error": code}, X_Error_Code=code)

    def _key(self, kind: str, repo: str) -> str:
        return f"{kind}/{repo}"

    def _commit_id(self, key: str) -> str:
        return hashlib.sha1(f"{key}{self.hub.commits.get(key, 0)}".encode()).hexdigest()

    def do_POST(self) -> None:
        path, body = unquote(urlparse(self.path).path), self._body()
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and "/verify" not in path:
            return self._send(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            data = json.loads(body)
            repo = f"{data['organization']}/{data['name']}" if data.get("organization") else data["name"]
            repo = repo if "/" in repo else f"tester/{repo}"
            key = self._key(data.get("type", "model") + "s", repo)
            code = 409 if key in self.hub.repos else 200
            self.hub.repos.setdefault(key, {})
            return self._send(code, {"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/preupload/[^/]+", path):
            if self._key(*found.groups()) not in self.hub.repos:
                return self._missing("RepoNotFound")
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".parquet")) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for f in files
            ]
            return self._send(200, {"files": modes})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = []
            for o in json.loads(body)["objects"]:
                upload = {"href": f"{self.hub.url}/lfs/{o['oid']}"}
                verify = {"href": f"{self.hub.url}/lfs/{o['oid']}/verify"}
                actions = {} if o["oid"] in self.hub.large else {"upload": upload, "verify": verify}
                objects.append({"oid": o["oid"], "size": o["size"], "actions": actions})
            return self._send(200, {"transfer": "basic", "objects": objects})
        if path.endswith("/verify"):
            return self._send(200, {})
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/commit/[^/]+", path):
            key = self._key(*found.groups())
            if key not in self.hub.repos:
                return self._missing("RepoNotFound")
            files = self.hub.repos[key]
            for line in body.decode().splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    files[value["path"]] = self.hub.large[value["oid"]]
                elif item["key"] == "deletedFile":
                    files.pop(value["path"], None)
            self.hub.commits[key] = self.hub.commits.get(key, 0) + 1
            oid = self._commit_id(key)
            place = ("datasets/" if found[1] == "datasets" else "") + found[2]
            return self._send(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{place}/commit/{oid}"})
        return self._missing("EntryNotFound")

    def do_PUT(self) -> None:
        found = re.fullmatch(r"/lfs/([0-9a-f]{64})", urlparse(self.path).path)
        content = self._body()
        if not found or hashlib.sha256(content).hexdigest() != found[1]:
            return self._send(400, {"error": "checksum"})
        self.hub.large[found[1]] = content
        return self._send(200)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlparse(self.path)
        path = unquote(url.path)
        if path == "/api/whoami-v2":
            return self._send(200, {"name": "tester", "type": "user", "orgs": []})
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            key = self._key(found[1], found[2])
            if key not in self.hub.repos:
                return self._missing("RepoNotFound")
            siblings = [{"rfilename": name} for name in self.hub.repos[key]]
            info = {"id": found[2], "sha": self._commit_id(key), "siblings": siblings, "private": False, "tags": []}
            return self._send(200, {**info, "downloads": 0, "likes": 0})
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path):
            key = self._key(found[1], found[2])
            if key not in self.hub.repos:
                return self._missing("RepoNotFound")
            prefix = f"{found[4]}/" if found[4] else ""
            deep = parse_qs(url.query).get("recursive", ["false"])[0].lower() == "true"
            names = [n for n in self.hub.repos[key] if n.startswith(prefix) and (deep or "/" not in n[len(prefix) :])]
            return self._send(200, [self._entry(key, name) for name in names])
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(self._key("datasets" if found[1] else "models", found[2]), found[4])
        return self._missing("EntryNotFound")

    def _entry(self, key: str, name: str) -> dict:
        content = self.hub.repos[key][name]
        entry = {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}
        sha = hashlib.sha256(content).hexdigest()
        if sha in self.hub.large:
            entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
        return entry

    def _file(self, key: str, name: str) -> None:
        if key not in self.hub.repos:
            return self._missing("RepoNotFound")
        if name not in self.hub.repos[key]:
            return self._send(
                404, {"error": "EntryNotFound"}, X_Error_Code="EntryNotFound", X_Repo_Commit=self._commit_id(key)
            )
        content = self.hub.repos[key][name]
        sha = hashlib.sha256(content).hexdigest()
        etag = f'"{sha if sha in self.hub.large else blob_id(content)}"'
        headers = {"X_Repo_Commit": self._commit_id(key), "ETag": etag, "Accept_Ranges": "bytes"}
        headers |= {"X_Linked_Size": str(len(content)), "X_Linked_Etag": etag}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            if start >= len(content):
                return self._send(416, b"", Content_Range=f"bytes */{len(content)}")
            part = content[start : end + 1]
            return self._send(206, part, Content_Range=f"bytes {start}-{start + len(part) - 1}/{len(content)}", **headers)
        return self._send(200, content, **headers)
