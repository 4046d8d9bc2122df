"""A small local Hub: what huggingface_hub's client needs, over real HTTP, with failures on demand.

It responds about what `hub_store.py` holds, with the statuses, headers and error codes of the real Hub.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_store import LARGE, File, Hub


class Stop(Exception):
    """An answer that ends a request early."""

    def __init__(self, status, message, code=None, headers=()):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers)


@contextmanager
def serve():
    """Run a Hub for as long as the block lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.storage = f"http://localhost:{server.server_port}"  # large files lie on another host, as with the real one
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self):
        self.action = None
        path = urlsplit(self.path).path
        request = f"{self.command} {unquote(path)}"
        try:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                body = self._read_chunks()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with self.hub.lock:
                self.hub.requests.append(request)
            self.action = self.hub.next_failure(request)
            if self.action == "cut":
                return self._break()
            if isinstance(self.action, tuple) and self.action[0] == "stall":
                threading.Event().wait(self.action[1])  # tests may have taken time.sleep away
                return self._break()
            if isinstance(self.action, int):
                self.action = (self.action, {})
            if isinstance(self.action, tuple):
                status, headers = self.action
                raise Stop(status, f"made to fail with {status}", headers=headers)
            self._route(path, parse_qs(urlsplit(self.path).query), body)
        except Stop as stop:
            headers = {"X-Error-Message": stop.message, **({"X-Error-Code": stop.code} if stop.code else {})}
            self._json({"error": stop.message}, stop.status, headers | stop.headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _read_chunks(self):
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _break(self):
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, content, status=200, headers=()):
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **dict(headers)})

    def _send(self, body, status=200, headers=()):
        if self.action == "lost":
            return self._break()
        if self.action == "corrupt" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        headers = {"X-Request-Id": "Root=1-test", **dict(headers)}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.action == "half":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            return self._break()
        pause = 0.2 if self.action == "drip" else 0
        step = 1_000_000 if pause else len(body) or 1
        for begin in range(0, len(body), step):
            self.wfile.write(body[begin : begin + step])
            threading.Event().wait(pause)
        return None

    # Who asks, and for what.

    def _user(self):
        header = self.headers.get("Authorization")
        if header is None:
            return None, None
        token = header.removeprefix("Bearer ")
        if token not in self.hub.users:
            raise Stop(401, "Invalid credentials in Authorization header")
        return self.hub.users[token]

    def _repo(self, kind, name, write=False, content=False):
        user, role = self._user()
        repo = self.hub.repos.get((kind, name))
        owner = name.partition("/")[0]
        if repo is None or (repo.private and user != owner and user not in repo.readers):
            raise Stop(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if content and repo.gated and user != owner and user not in repo.readers:
            status = 401 if user is None else 403
            raise Stop(status, f"Access to model {name} is restricted. You must have access to it.", "GatedRepo")
        if write and user is None:
            raise Stop(401, "Invalid username or password.")
        if write and (user != owner or role != "write"):
            raise Stop(403, "Forbidden: you must use a write token to upload to a repository.")
        return repo

    def _commit(self, repo, revision):
        found = repo.find(unquote(revision))
        if found is None:
            raise Stop(404, f"Invalid rev id: {unquote(revision)}", "RevisionNotFound")
        return found

    # What is asked for.

    def _route(self, path, query, body):
        for method, pattern, handler in _ROUTES:
            if method == self.command or (method == "GET" and self.command == "HEAD"):
                found = re.fullmatch(pattern, path)
                if found:
                    return getattr(self, handler)(query, body, **found.groupdict())
        raise Stop(404, f"Cannot {self.command} {path}")

    def whoami(self, query, body):
        user, role = self._user()
        if user is None:
            raise Stop(401, "Invalid username or password.")
        token = {"displayName": "test", "role": role}
        self._json({"type": "user", "name": user, "orgs": [], "auth": {"type": "access_token", "accessToken": token}})

    def create(self, query, body):
        user, role = self._user()
        asked = json.loads(body)
        if user is None:
            raise Stop(401, "Invalid username or password.")
        owner = asked.get("organization") or user
        if owner != user or role != "write":
            raise Stop(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        kind, name = asked.get("type") or "model", f"{owner}/{asked['name']}"
        prefix = {"dataset": "datasets/", "space": "spaces/"}.get(kind, "")
        told = {"url": f"{self.hub.url}/{prefix}{name}", "name": name}
        with self.hub.lock:
            if (kind, name) in self.hub.repos:
                return self._json(told | {"error": "You already created this model repo"}, 409)
            self.hub.make(name, kind=kind, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        return self._json(told)

    def validate_yaml(self, query, body):
        content = json.loads(body)["content"]
        found = re.match(r"---\r?\n(.*?)\n---", content, re.DOTALL)
        try:
            metadata = yaml.safe_load(found[1]) if found else None
        except yaml.YAMLError:
            return self._json({"errors": [{"message": "the metadata is not valid YAML"}], "warnings": []}, 400)
        if not metadata:
            return self._json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
        wrong = [{"message": f'"{name}" must be a string'} for name in ("license", "library_name") if name in metadata]
        wrong = [each for each in wrong if not isinstance(metadata[each["message"].split('"')[1]], str)]
        return self._json({"errors": wrong, "warnings": []}, 400 if wrong else 200)

    def info(self, query, body, kind, name, revision="main"):
        repo = self._repo(kind, name)
        commit = self._commit(repo, revision)
        self._json(
            {
                "id": name,
                "sha": commit.oid,
                "private": repo.private,
                "gated": "manual" if repo.gated else False,
                "siblings": [{"rfilename": path} for path in sorted(commit.files)],
                "tags": [],
            }
        )

    def tree(self, query, body, kind, name, revision):
        commit = self._commit(self._repo(kind, name), revision)
        self._json([{"path": path} | file.entry for path, file in sorted(commit.files.items())])

    def paths_info(self, query, body, kind, name, revision):
        commit = self._commit(self._repo(kind, name), revision)
        asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
        self._json([{"path": path} | commit.files[path].entry for path in asked if path in commit.files])

    def refs(self, query, body, kind, name):
        repo = self._repo(kind, name)
        told = {
            key: [{"name": ref.rpartition("/")[2], "ref": ref, "targetCommit": oid} for ref, oid in named.items()]
            for key, named in (("branches", repo.branches), ("tags", repo.tags), ("pullRequests", repo.pull_requests))
        }
        self._json({"converts": [], **told})

    def commits(self, query, body, kind, name, revision):
        repo = self._repo(kind, name)
        commit, told = self._commit(repo, revision), []
        while commit is not None:
            told.append({"id": commit.oid, "title": commit.title, "message": commit.description, "authors": []})
            told[-1]["date"] = "2026-01-01T00:00:00.000Z"
            commit = repo.commits.get(commit.parent)
        self._json(told)

    def branch(self, query, body, kind, name, branch):
        repo = self._repo(kind, name, write=True)
        asked = json.loads(body or b"{}")
        with self.hub.lock:
            if unquote(branch) in repo.branches:
                raise Stop(409, f"Reference already exists: {unquote(branch)}")
            repo.branches[unquote(branch)] = self._commit(repo, asked.get("startingPoint") or "main").oid
        self._json({}, 201)

    def preupload(self, query, body, kind, name, revision):
        repo = self._repo(kind, name, write="create_pr" not in query)
        commit = self._commit(repo, revision)
        told = []
        for asked in json.loads(body)["files"]:
            large = bool(LARGE.search(asked["path"])) or asked["size"] > 10_000_000
            there = commit.files.get(asked["path"])
            told.append(
                {
                    "path": asked["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": (there.sha256 or there.oid) if there else None,
                }
            )
        self._json({"files": told, "commitOid": commit.oid})

    def lfs_batch(self, query, body, name, kind=None):
        kind = {"datasets/": "dataset", "spaces/": "space"}.get(kind, "model")
        self._repo(kind, name, write=False)
        objects = []
        for asked in json.loads(body)["objects"]:
            if asked["oid"] not in self.hub.large:
                href = f"{self.hub.storage}/storage/{asked['oid']}?X-Amz-Signature=secretsignature"
                asked = asked | {"actions": {"upload": {"href": href, "header": {}}}}
            objects.append(asked)
        self._json({"transfer": "basic", "objects": objects}, headers={"Content-Type": "application/vnd.git-lfs+json"})

    def store(self, query, body, oid):
        if "X-Amz-Signature" not in query or self.headers.get("Authorization"):
            raise Stop(403, "only what the signature allows, and no second way to say who asks")
        if hashlib.sha256(body).hexdigest() != oid:
            raise Stop(400, "BadDigest")
        with self.hub.lock:
            self.hub.large[oid] = body
        self._send(b"", headers={"ETag": f'"{oid[:32]}"'})

    def storage(self, query, body, oid):
        self._ranged(self.hub.large[oid], {"ETag": f'"{oid}"'})

    def commit(self, query, body, kind, name, revision):
        opens_pr = "create_pr" in query
        repo = self._repo(kind, name, write=not opens_pr)
        if opens_pr and self._user()[0] is None:
            raise Stop(401, "Invalid username or password.")
        header, *changes = (json.loads(line) for line in body.splitlines() if line.strip())
        with self.hub.lock:
            parent = self._commit(repo, revision)
            if header["value"].get("parentCommit") not in (None, parent.oid):
                raise Stop(412, "A commit has happened since. Please refresh and try again.")
            files = dict(parent.files)
            for change in changes:
                value = change["value"]
                if change["key"] == "file":
                    files[value["path"]] = File(base64.b64decode(value["content"]))
                elif change["key"] == "lfsFile":
                    if value["oid"] not in self.hub.large:
                        raise Stop(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                    files[value["path"]] = File(self.hub.large[value["oid"]], value["oid"])
                elif files.pop(value["path"], None) is None:
                    raise Stop(404, "A file with this name doesn't exist", "EntryNotFound")
            oid = repo.add(files, header["value"]["summary"], parent.oid, header["value"].get("description", ""))
            url = f"{self.hub.url}/{name}"
            told = {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", "hookOutput": ""}
            if opens_pr:
                number = len(repo.pull_requests) + 1
                repo.pull_requests[f"refs/pr/{number}"] = oid
                told["pullRequestUrl"] = f"{url}/discussions/{number}"
            elif (ref := unquote(revision)) in repo.pull_requests:
                repo.pull_requests[ref] = oid
            elif ref in repo.branches:
                repo.branches[ref] = oid
            else:
                raise Stop(403, "Forbidden: only branches and pull requests can be committed to")
        self._json(told)

    def resolve(self, query, body, name, revision, path, kind=None):
        kind = {"datasets/": "dataset", "spaces/": "space"}.get(kind, "model")
        repo = self._repo(kind, name, content=True)
        commit = self._commit(repo, revision)
        told = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        file = commit.files.get(unquote(path))
        if file is None:
            raise Stop(404, "Entry not found", "EntryNotFound", told)
        if file.sha256 is not None:
            told |= {"X-Linked-Size": str(len(file.content)), "X-Linked-Etag": f'"{file.sha256}"'}
            location = f"{self.hub.storage}/storage/{file.sha256}?X-Amz-Signature=secretsignature"
            return self._send(b"", 302, told | {"Location": location, "ETag": f'"{file.oid}"'})
        return self._ranged(file.content, told | {"ETag": f'"{file.oid}"'})

    def _ranged(self, content, headers):
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            begin, end = int(asked[1]), int(asked[2] or len(content) - 1)
            headers = headers | {"Content-Range": f"bytes {begin}-{end}/{len(content)}"}
            return self._send(content[begin : end + 1], 206, headers)
        return self._send(content, 200, headers | {"Content-Length": str(len(content))})


_KIND = r"/api/(?P<kind>model|dataset|space)s/(?P<name>[\w.-]+/[\w.-]+)"
_ROUTES = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("GET", _KIND, "info"),
    ("GET", _KIND + r"/revision/(?P<revision>[^/]+)", "info"),
    ("GET", _KIND + r"/tree/(?P<revision>[^/]+)", "tree"),
    ("POST", _KIND + r"/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("GET", _KIND + r"/refs", "refs"),
    ("GET", _KIND + r"/commits/(?P<revision>[^/]+)", "commits"),
    ("POST", _KIND + r"/branch/(?P<branch>[^/]+)", "branch"),
    ("POST", _KIND + r"/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", _KIND + r"/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", r"/(?P<kind>datasets/|spaces/)?(?P<name>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})", "store"),
    ("GET", r"/storage/(?P<oid>[0-9a-f]{64})", "storage"),
    (
        "GET",
        r"/(?P<kind>datasets/|spaces/)?(?P<name>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        "resolve",
    ),
)
