"""A small stand-in for the Hub over HTTP, in memory and in this process.

It listens on the loopback address and a free port.

It knows what pushing and loading a model or a dataset needs: repositories with branches and
commits, git and LFS files, ranges, a token, private and gated repositories, collections. A test may
tell it to answer some requests with an error, or to drop the connection. It is a double: it does
not show token scopes, the real rate limits, xet storage, redirects to another host, conflicts
between pushes, or the Hub's real validation of cards (it looks at the form of the model index).

The client reads its environment once, when huggingface_hub is imported, so it runs in a process of
its own with `environment(hub, home)`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

import yaml

TOKEN = "hf_test"
REPO = r"(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SPACE_KEYS = {"sdk": {"gradio", "docker", "static"}, "colorFrom": COLOURS, "colorTo": COLOURS}
LARGE = (".safetensors", ".parquet", ".bin")


def environment(hub: FakeHub, home: Path, *, token: str | None = TOKEN) -> dict[str, str]:
    """Return the environment of a process whose Hub is the stand-in."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    env |= {f"HF_HUB_DISABLE_{name}": "1" for name in ("XET", "TELEMETRY", "PROGRESS_BARS")}
    return env | ({"HF_TOKEN": token} if token else {})


class FakeRepo:
    """Branches point to commits; a commit is all files by path."""

    def __init__(self, name: str, *, private: bool = False, gated: bool = False) -> None:
        self.name, self.private, self.gated = name, private, gated
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.commit("main", {})

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{self.name} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


@dataclass
class Failure:
    """What the stand-in does instead of answering some requests."""

    method: str
    path: str  # a regular expression that matches somewhere in the path
    status: int | None = None  # None: the connection is dropped after half of the body was read
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


class FakeHub:
    """Start it, set HF_ENDPOINT to `.url`, read `.repos` ("models/owner/name") and `.requests`."""

    def __init__(self) -> None:
        self.repos: dict[str, FakeRepo] = {}
        self.large: dict[str, bytes] = {}  # by sha256
        self.collections: dict[str, dict] = {}  # by slug
        self.failures: list[Failure] = []
        self.requests: list[
            tuple[str, str, str]
        ] = []  # method, path and range of all that was asked for
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        serve = self.server.serve_forever  # called with the seconds between two looks at its end
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()

    def add_large(self, content: bytes) -> None:
        """Keep a file as if it had been uploaded to the large-file store."""
        self.large[hashlib.sha256(content).hexdigest()] = content

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    # In the order in which they are tried: method, path pattern, function name, needs the token.
    ROUTES = (
        ("POST", r"/api/validate-yaml", "validate", False),
        ("GET", r"/api/whoami-v2", "whoami", True),
        ("POST", r"/api/repos/create", "create", True),
        ("DELETE", r"/api/repos/delete", "delete", True),
        ("POST", r"/api/collections", "new_collection", True),
        ("GET", r"/api/collections/(?P<slug>.+)", "collection", False),
        ("POST", r"/api/collections/(?P<slug>.+)/items", "collect", True),
        ("POST", rf"/api/{REPO}/branch/(?P<branch>.+)", "branch", True),
        ("POST", rf"/api/{REPO}/preupload/(?P<revision>[^/]+)", "preupload", True),
        (
            "POST",
            r"/(?:datasets/|spaces/)?[^/]+/[^/]+\.git/info/lfs/objects/batch",
            "lfs_batch",
            True,
        ),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put", False),
        ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/verify", "lfs_verify", True),
        ("POST", rf"/api/{REPO}/commit/(?P<revision>[^/]+)", "commit", True),
        ("GET", rf"/api/{REPO}(?:/revision/(?P<revision>[^/]+))?", "info", False),
        ("GET", rf"/api/{REPO}/refs", "refs", False),
        ("GET", rf"/api/{REPO}/commits/(?P<revision>[^/]+)", "history", False),
        ("GET", rf"/api/{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?", "tree", False),
        ("POST", rf"/api/{REPO}/paths-info/(?P<revision>[^/]+)", "paths_info", False),
        (
            "GET",
            r"/(?P<folder>datasets/|spaces/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
            "file",
            False,
        ),
    )

    def log_message(self, *args) -> None:
        pass

    def answer(self) -> None:
        """Find the route; check token, repository and revision; call the route's function."""
        url = urlparse(self.path)
        if (failure := self.failure(unquote(url.path))) is not None:
            self.hub.requests.append((self.command, unquote(url.path), "failed"))
            if failure.status is None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return None
            self.body()
            return self.send(failure.status, {"error": "told to fail"}, **failure.headers)
        body = self.body()
        self.query = parse_qs(url.query)
        self.hub.requests.append((self.command, unquote(url.path), self.headers.get("Range", "")))
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, name, needs_token in self.ROUTES:
            found = re.fullmatch(pattern, unquote(url.path))
            if wanted != method or not found:
                continue
            parts = found.groupdict()
            token = self.headers.get("Authorization")
            known = token == f"Bearer {TOKEN}"
            if (token and not known) or (needs_token and not known):
                return self.send(401, {"error": "Invalid username or password."})
            if "repo" in parts:
                kind = parts.pop("kind", None)
                if kind is None:
                    kind = (parts.pop("folder", None) or "models").rstrip("/")
                parts["repo"] = self.hub.repos.get(f"{kind}/{parts['repo']}")
                if parts["repo"] is None or (parts["repo"].private and not known):
                    return self.send(
                        404 if known else 401,
                        {"error": "Repository not found"},
                        X_Error_Code="RepoNotFound",
                    )
                if parts["repo"].gated and name == "file":
                    return self.send(403, {"error": "gated"}, X_Error_Code="GatedRepo")
            if "revision" in parts:
                parts["oid"] = parts["repo"].resolve(parts["revision"] or "main")
                if parts["oid"] is None:
                    return self.send(
                        404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound"
                    )
            with self.hub.lock:
                reply = getattr(self, name)(body=body, **parts)
            return self.send(*reply[:2], **(reply[2] if len(reply) > 2 else {}))
        return self.send(404, {"error": f"the stand-in does not know {method} {url.path}"})

    def failure(self, path: str) -> Failure | None:
        """Return the failure that a test planned for this request, which is then used up."""
        with self.hub.lock:
            for planned in self.hub.failures:
                if planned.method == self.command and re.search(planned.path, path):
                    planned.times -= 1
                    if not planned.times:
                        self.hub.failures.remove(planned)
                    return planned
        return None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    # Each route's function returns status, content and perhaps headers.

    def validate(self, body):
        errors = metadata_errors(json.loads(body)["content"])
        return 400 if errors else 200, {"errors": [{"message": e} for e in errors], "warnings": []}

    def whoami(self, body):
        return 200, {"name": "tester", "type": "user", "orgs": [], "auth": {"type": "access_token"}}

    def create(self, body):
        data = json.loads(body)
        name = (
            data["name"]
            if "/" in data["name"]
            else f"{data.get('organization') or 'tester'}/{data['name']}"
        )
        key = f"{data.get('type', 'model')}s/{name}"
        if key.startswith("spaces") and data.get("sdk") not in ("gradio", "docker", "static"):
            return 400, {"error": "a Space needs an sdk"}
        place = f"{self.hub.url}/{key.removeprefix('models/')}"
        if key in self.hub.repos:
            return 409, {"error": "You already created this repo", "url": place}
        private = data.get("private") or data.get("visibility") == "private"
        self.hub.repos[key] = FakeRepo(name, private=bool(private))
        return 200, {"url": place, "name": name, "id": name}

    def delete(self, body):
        data = json.loads(body)
        key = f"{data.get('type', 'model')}s/{data.get('organization') or 'tester'}/{data['name']}"
        return (
            (200, {}) if self.hub.repos.pop(key, None) else (404, {"error": "Repository not found"})
        )

    def branch(self, body, repo, branch):
        if branch in repo.branches:
            return 409, {"error": "Reference already exists"}
        if not re.fullmatch(r"[\w./-]+", branch):
            return 422, {"error": "Invalid reference name"}
        repo.branches[branch] = repo.branches["main"]
        return 200, {}

    def preupload(self, body, repo, revision, oid):
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            | self.known_oid(repo.commits[oid], f["path"])
            for f in json.loads(body)["files"]
        ]
        return 200, {"files": files, "commitOid": oid}

    def known_oid(self, files, path):
        if path not in files:
            return {}
        entry = self.entry(path, files[path])
        return {"oid": entry.get("lfs", entry)["oid"]}

    def new_collection(self, body):
        data = json.loads(body)
        slug = f"{data['namespace']}/{data['title'].lower().replace(' ', '-')}-{'0' * 24}"
        if slug in self.hub.collections:
            return 409, {"error": "it exists", "slug": slug}
        self.hub.collections[slug] = {
            "slug": slug,
            "title": data["title"],
            "owner": {"name": data["namespace"]},
            "description": data.get("description"),
            "private": data["private"],
            "items": [],
            "lastUpdated": "2026-01-01T00:00:00.000Z",
            "position": 0,
            "theme": "blue",
            "upvotes": 0,
        }
        return 200, self.hub.collections[slug]

    def collection(self, body, slug):
        return 200, self.hub.collections[slug]

    def collect(self, body, slug):
        found, item = self.hub.collections[slug], json.loads(body)["item"]
        if any(known["id"] == item["id"] for known in found["items"]):
            return 409, {"error": "it is there"}
        if f"{item['type']}s/{item['id']}" not in self.hub.repos:
            return 404, {"error": "no such repository"}
        at = len(found["items"])
        found["items"].append({**item, "_id": f"{at:024d}", "position": at})
        return 200, found

    def lfs_batch(self, body):
        objects = []
        for item in json.loads(body)["objects"]:
            href = f"{self.hub.url}/lfs/{item['oid']}"
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.large:  # what is here already gets no actions
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(answer)
        return 200, {"transfer": "basic", "objects": objects}

    def lfs_put(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "the content does not have this sha256"}
        self.hub.large[oid] = body
        return 200, b""

    def lfs_verify(self, body, oid):
        return (
            (200, {})
            if len(self.hub.large.get(oid, b"")) == json.loads(body)["size"]
            else (404, {"error": "not here"})
        )

    def commit(self, body, repo, revision, oid):
        files = dict(repo.commits[oid])
        for line in body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif item["key"] in ("deletedFile", "deletedFolder"):
                gone = value["path"].rstrip("/")
                files = {
                    path: f
                    for path, f in files.items()
                    if path != gone and not path.startswith(f"{gone}/")
                }
        new = repo.commit(revision, files)
        return 200, {
            "success": True,
            "commitOid": new,
            "commitUrl": f"{self.hub.url}/{repo.name}/commit/{new}",
        }

    def info(self, body, repo, revision, oid):
        siblings = [{"rfilename": path} for path in repo.commits[oid]]
        about = {
            "id": repo.name,
            "sha": oid,
            "private": repo.private,
            "siblings": siblings,
            "tags": [],
        }
        return 200, {**about, "downloads": 0, "likes": 0}

    def refs(self, body, repo):
        branches = [
            {"name": n, "ref": f"refs/heads/{n}", "targetCommit": oid}
            for n, oid in repo.branches.items()
        ]
        return 200, {"branches": branches, "tags": [], "converts": []}

    def history(self, body, repo, revision, oid):
        commits = [*reversed(repo.commits)]
        rows = [
            {"id": c, "title": "", "message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}
            for c in commits
        ]
        return 200, rows[commits.index(oid) :]

    def tree(self, body, repo, revision, oid, folder):
        files, prefix = repo.commits[oid], f"{folder}/" if folder else ""
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        inside = [path for path in files if path.startswith(prefix)]
        if prefix and not inside:
            return 404, {"error": "no such folder"}, {"X_Error_Code": "EntryNotFound"}
        entries, folders = [], set()
        for path in inside:
            parts = path[len(prefix) :].split("/")
            folders |= {
                prefix + "/".join(parts[:n])
                for n in range(1, len(parts) if deep else min(2, len(parts)))
            }
            if deep or len(parts) == 1:
                entries.append(self.entry(path, files[path]))
        return 200, [*map(folder_entry, sorted(folders)), *entries]

    def paths_info(self, body, repo, revision, oid):
        json_body = self.headers.get("Content-Type", "").startswith("application/json")
        paths = json.loads(body)["paths"] if json_body else parse_qs(body.decode()).get("paths", [])
        files, found = repo.commits[oid], []
        for path in paths:
            if path in files:
                found.append(self.entry(path, files[path]))
            elif any(name.startswith(f"{path}/") for name in files):
                found.append(folder_entry(path))
        return 200, found

    def file(self, body, repo, revision, oid, path):
        headers = {"X_Repo_Commit": oid}
        if path not in repo.commits[oid]:
            return 404, {"error": "Entry not found"}, {**headers, "X_Error_Code": "EntryNotFound"}
        content = repo.commits[oid][path]
        entry = self.entry(path, content)
        etag = f'"{entry.get("lfs", entry)["oid"]}"'
        headers |= {
            "ETag": etag,
            "X_Linked_Etag": etag,
            "X_Linked_Size": str(len(content)),
            "Accept_Ranges": "bytes",
        }
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            if start >= len(content):
                return 416, b"", {"Content_Range": f"bytes */{len(content)}"}
            part = content[start : end + 1]
            headers["Content_Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
            return 206, part, headers
        return 200, content, headers

    def entry(self, path: str, content: bytes) -> dict:
        entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
        sha = hashlib.sha256(content).hexdigest()
        return entry | (
            {"lfs": {"oid": sha, "size": len(content), "pointerSize": 130}}
            if sha in self.hub.large
            else {}
        )

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, content: bytes | dict | list, **headers: str) -> None:
        if not isinstance(content, bytes):
            content, headers = (
                json.dumps(content).encode(),
                {**headers, "Content_Type": "application/json"},
            )
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def folder_entry(path: str) -> dict:
    """Return how a folder is listed."""
    return {"type": "directory", "path": path, "size": 0, "oid": blob_id(path.encode())}


def blob_id(content: bytes) -> str:
    """Return the id that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def metadata_errors(card: str) -> list[str]:
    """Return what is wrong with the form of a card's metadata."""
    found = re.match(r"---\n(.*?)\n---\n", card, flags=re.S)
    try:
        metadata = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    errors = [
        f"{key} is {metadata[key]!r}"
        for key, known in SPACE_KEYS.items()
        if "sdk" in metadata and metadata.get(key) not in known
    ]
    for model in metadata.get("model-index", []):
        for number, result in enumerate(model.get("results", [])):
            wanted = [("task", "type"), ("dataset", "type"), ("dataset", "name")]
            errors += [
                f"result {number} lacks {a}.{b}"
                for a, b in wanted
                if not isinstance(result.get(a, {}).get(b), str)
            ]
            for metric in result.get("metrics", []):
                if "type" not in metric or not isinstance(metric.get("value"), (int, float)):
                    errors.append(f"result {number} has a metric without type or number: {metric}")
    return errors
