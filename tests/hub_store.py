"""What the local Hub of the tests holds: users and tokens, repositories with commits, large files by their hash.

`hub_server.py` serves it over HTTP. `Hub.fail` makes later requests fail.
"""

import hashlib
import re
import threading
from dataclasses import dataclass, field

TOKEN, OTHER_TOKEN, READ_TOKEN = "hf_" + "w" * 34, "hf_" + "o" * 34, "hf_" + "r" * 34
LARGE = re.compile(r"\.(safetensors|bin|pt|pth|ckpt|h5|model|gguf|zip)$")


@dataclass(frozen=True)
class File:
    """A file of a commit; `sha256` only where it is kept as a large file."""

    content: bytes
    sha256: str | None = None

    @property
    def oid(self):
        data = self.content if self.sha256 is None else self.pointer
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def pointer(self):
        lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}", f"size {len(self.content)}")
        return "\n".join([*lines, ""]).encode()

    @property
    def entry(self):
        told = {"type": "file", "size": len(self.content), "oid": self.oid}
        if self.sha256 is not None:
            told["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return told


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    description: str
    files: dict


@dataclass
class Repo:
    name: str
    kind: str = "model"
    private: bool = False
    gated: bool = False
    readers: set = field(default_factory=set)
    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)
    pull_requests: dict = field(default_factory=dict)

    def find(self, revision):
        """The commit that a branch, a tag, a pull request or a hash names; None if there is none."""
        for named in (self.branches, self.tags, self.pull_requests):
            if revision in named:
                return self.commits[named[revision]]
        return self.commits.get(revision)

    def add(self, files, title, parent=None, description=""):
        told = repr((sorted((name, file.oid) for name, file in files.items()), title, parent, len(self.commits)))
        oid = hashlib.sha1(told.encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, description, dict(files))
        return oid


@dataclass
class Failure:
    """What happens to requests whose method and path match; `times` of them, after `after` have passed."""

    pattern: re.Pattern
    action: object
    times: int
    after: int


class Hub:
    """The server's state, and what tests do with it."""

    def __init__(self):
        self.users = {TOKEN: ("user", "write"), OTHER_TOKEN: ("other", "write"), READ_TOKEN: ("user", "read")}
        self.repos = {}
        self.large = {}
        self.requests = []
        self.failures = []
        self.lock = threading.RLock()
        self.url = self.storage = ""

    def repo(self, name, kind="model"):
        return self.repos[kind, name]

    def make(self, name, files=None, *, kind="model", branch="main", title="initial commit", **options):
        """Put files into a repository as a commit, as somebody else would have; contents are bytes or text."""
        with self.lock:
            repo = self.repos.get((kind, name)) or Repo(name, kind)
            for option, value in options.items():
                setattr(repo, option, value)
            self.repos[kind, name] = repo
            parent = repo.branches.get(branch) or repo.branches.get("main")
            there = dict(repo.commits[parent].files) if parent else {".gitattributes": File(b"*.safetensors lfs\n")}
            for path, content in (files or {}).items():
                there[path] = self._file(path, content.encode() if isinstance(content, str) else content)
            repo.branches[branch] = repo.add(there, title, parent)
            return repo

    def _file(self, path, content):
        if not LARGE.search(path):
            return File(content)
        sha256 = hashlib.sha256(content).hexdigest()
        self.large[sha256] = content
        return File(content, sha256)

    def fail(self, pattern, action, times=1, after=0):
        """Let requests go wrong whose "METHOD /path" the pattern finds.

        `action` is an HTTP status or (status, headers); "cut" (the connection breaks before an answer), "lost" (it
        breaks when the work is done), "half" (it breaks in the middle of the body), "corrupt" (a byte is another),
        "drip" (it comes slowly), or a number of seconds of silence as ("stall", seconds).
        """
        self.failures.append(Failure(re.compile(pattern), action, times, after))

    def next_failure(self, request):
        with self.lock:
            for failure in self.failures:
                if failure.times and failure.pattern.search(request):
                    if failure.after:
                        failure.after -= 1
                        continue
                    failure.times -= 1
                    return failure.action
        return None

    def asked(self, pattern):
        """The requests so far that the pattern finds, as "METHOD /path"."""
        return [request for request in self.requests if re.search(pattern, request)]
