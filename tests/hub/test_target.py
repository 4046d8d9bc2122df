"""Results of a push when others write too, when it fails half way, and when a server does less than it reports."""

import json
import re
import threading

import huggingface_hub.constants
import pytest
from hub_server import Stop
from hub_store import File

from fundamentallm_hf.hub.error_messages import ChangedError, hub_error
from fundamentallm_hf.hub.upload import upload_folder
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.publishing.publish import card_there


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "README.md").write_text("---\nlicense: mit\n---\n# Stories\n")
    (made / "model.safetensors").write_bytes(b"weights " * 1000)
    return made


def contents(hub, revision="main", name="user/stories"):
    files = hub.repo(name).find(revision).files
    return {name: file.content for name, file in files.items() if name != ".gitattributes"}


def before(hub, pattern, action):
    """Do something once, just before the first request that matches is answered."""
    original, left = hub.next_failure, [action]

    def meanwhile(request):
        if left and re.search(pattern, request):
            left.pop()()
        return original(request)

    hub.next_failure = meanwhile


def test_a_commit_since_the_one_built_on_is_not_written_over(hub, folder):
    hub.make("user/stories", {"README.md": "first"})
    there = card_there("user/stories", None, None, lambda text: None)
    assert (there.text, there.commit) == ("first", hub.repo("user/stories").branches["main"])
    hub.make("user/stories", {"README.md": "edited"})
    with pytest.raises(ChangedError, match=r"^user/stories was changed by somebody else meanwhile: try again$"):
        upload_folder(folder, "user/stories", base=there.commit)
    assert contents(hub) == {"README.md": b"edited"}
    assert not hub.asked("PUT|/commit/")
    upload_folder(folder, "user/stories", base=hub.repo("user/stories").branches["main"])
    assert "config.json" in contents(hub)


def test_a_repository_that_appears_meanwhile_is_not_written_over(hub, folder):
    there = card_there("user/stories", None, None, lambda text: None)
    assert (there.text, there.commit) == (None, "")
    hub.make("user/stories", {"README.md": "theirs"})
    with pytest.raises(ChangedError):
        upload_folder(folder, "user/stories", base="")
    assert contents(hub) == {"README.md": b"theirs"}
    upload_folder(folder, "user/other", base="")
    with pytest.raises(ChangedError):  # it was there, and is gone
        upload_folder(folder, "user/gone", base="0" * 40)
    assert ("model", "user/gone") not in hub.repos


def test_a_branch_begins_at_the_commit_that_the_card_was_read_at(hub, folder):
    hub.make("user/stories", {"README.md": "first"})
    there = card_there("user/stories", "next", None, lambda text: None)
    hub.make("user/stories", {"README.md": "edited"})
    with pytest.raises(UserError, match=r"try again; the branch next was made for this, with what was there before$"):
        upload_folder(folder, "user/stories", revision="next", base=there.commit)
    assert contents(hub, "next") == {"README.md": b"edited"}


def test_a_card_without_an_answer_is_not_taken_for_no_card(hub, waits):
    hub.make("user/stories", {"README.md": "with edits"})
    for action in (503, "cut", "half"):
        hub.fail("(HEAD|GET) .*README.md", action, times=2)
        said = []
        assert card_there("user/stories", None, None, said.append).text == "with edits"
        hub.failures.clear()
        hub.fail("(HEAD|GET) .*README.md", action, times=99)
        with pytest.raises(UserError):
            card_there("user/stories", None, None, said.append)
        hub.failures.clear()
    hub.make("user/stories", gated=True, readers=set())
    hub.users = dict.fromkeys(hub.users, ("other", "write"))
    with pytest.raises(UserError, match="is gated"):
        card_there("user/stories", None, None, lambda text: None)


@pytest.mark.parametrize(
    "where", ["GET /api/models/user/stories/tree", "validate-yaml", "preupload", "PUT", "/commit/"]
)
def test_a_push_that_fails_after_the_repository_was_made_says_so(hub, folder, waits, where):
    hub.fail(where, 507, times=99)
    with pytest.raises(UserError) as caught:
        upload_folder(folder, "user/stories")
    line = str(caught.value)
    assert line.endswith("; the repository was made for this and is empty: the next try goes on with it")
    assert "\n" not in line
    assert contents(hub) == {}
    hub.failures.clear()
    hub.fail(where, 507, times=99)
    with pytest.raises(UserError) as caught:
        upload_folder(folder, "user/stories")  # it is there now, so nothing new is left
    assert "was made" not in str(caught.value)


def test_whoever_interrupts_a_push_is_told_too(hub, folder, monkeypatch):
    def interrupt(*arguments, **others):
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", interrupt)
    said = []
    with pytest.raises(KeyboardInterrupt):
        upload_folder(folder, "user/stories", notice=said.append)
    assert said == ["the repository was made for this and is empty: the next try goes on with it"]


def test_where_nobody_can_tell_whether_a_commit_arrived_the_line_says_so(hub, folder, waits):
    hub.make("user/stories")
    hub.fail("/commit/", "lost")
    before(hub, "/commit/", lambda: hub.fail("GET /api/models", "cut", times=99))
    with pytest.raises(
        UserError, match=r"is out of reach.*; whether the commit arrived is not known: the next try finds"
    ):
        upload_folder(folder, "user/stories")
    hub.failures.clear()
    assert upload_folder(folder, "user/stories").changed is False


def test_nothing_to_commit_is_found_here_and_not_believed(hub, folder):
    upload_folder(folder, "user/stories")
    hub.requests.clear()
    again = upload_folder(folder, "user/stories")
    assert (again.changed, again.commit) == (False, hub.repo("user/stories").branches["main"])
    assert again.url == f"{hub.url}/user/stories/commit/{again.commit}"
    assert not hub.asked("POST|PUT")


def ignoring(hub, monkeypatch, names):
    """A server that takes nothing of some files, and says nothing of it."""
    import hub_server

    original = hub_server._Handler.preupload

    def preupload(self, query, body, **named):
        sent = self._json
        self._json = lambda content, *told, **others: sent(
            content | {"files": [each | {"shouldIgnore": each["path"] in names} for each in content["files"]]},
            *told,
            **others,
        )
        original(self, query, body, **named)

    monkeypatch.setattr(hub_server._Handler, "preupload", preupload)


@pytest.mark.parametrize("left_out", [{"config.json"}, {"config.json", "README.md", "model.safetensors"}])
def test_a_server_that_leaves_files_out_is_found_out(hub, folder, monkeypatch, left_out):
    hub.make("user/stories", {"config.json": "[]"})  # of the same size
    ignoring(hub, monkeypatch, left_out)
    with pytest.raises(
        UserError, match=r"these files are not as they were sent: .*config.json.*; see whether its .gitig"
    ):
        upload_folder(folder, "user/stories")
    assert contents(hub)["config.json"] == b"[]"


def test_a_server_with_hashes_of_its_own_is_believed_where_the_files_are_the_same(hub, folder, monkeypatch):
    upload_folder(folder, "user/stories")
    monkeypatch.setattr(File, "oid", property(lambda file: "f" * 40))
    ignoring(hub, monkeypatch, {"config.json", "README.md"})
    assert upload_folder(folder, "user/stories").changed is not None
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"not as they were sent: config.json;"):
        upload_folder(folder, "user/stories")


def test_a_check_that_cannot_be_made_is_said(hub, folder, waits):
    hub.make("user/stories")
    before(hub, "/commit/", lambda: hub.fail("/tree/", 503, times=99))
    said = []
    assert upload_folder(folder, "user/stories", notice=said.append).changed
    assert said[-1] == "the commit was made, but the Hub could not be asked whether all of it is there"


@pytest.mark.parametrize("where", ["preupload", "/commit/"])
def test_a_server_without_pull_requests_is_quoted(hub, folder, where):
    hub.make("user/stories")
    original = hub.next_failure

    def refuse(request):
        if where in request:
            raise Stop(501, "This server has no pull requests.", "NotImplemented")
        return original(request)

    hub.next_failure = refuse
    with pytest.raises(UserError) as caught:
        upload_folder(folder, "user/stories", create_pr=True)
    host = hub.url.removeprefix("http://")
    assert str(caught.value) == (
        f"user/stories cannot get a pull request, since {host} offers none (This server has no pull requests): commit "
        "to a branch instead"
    )
    with pytest.raises(UserError) as caught:
        upload_folder(folder, "user/stories")
    assert (
        str(caught.value) == f"user/stories asks for what {host} does not offer (501: This server has no pull requests)"
    )


def test_a_server_that_commits_instead_of_opening_a_pull_request_is_found_out(hub, folder, monkeypatch):
    import hub_server

    original = hub_server._Handler.commit

    def commit(self, query, body, **named):
        sent = self._json
        self._json = lambda content: sent(content | {"pullRequestUrl": None})
        original(self, {}, body, **named)

    monkeypatch.setattr(hub_server._Handler, "commit", commit)
    hub.make("user/stories")
    with pytest.raises(
        UserError, match="the Hub opened no pull request but committed at once, as it offers none: see http"
    ):
        upload_folder(folder, "user/stories", create_pr=True)


def test_the_servers_own_words_are_passed_on(hub, folder, waits):
    hub.make("user/stories")
    for status in (500, 502, 503, 504, 507, 418):
        hub.fail("preupload", status, times=99)
        with pytest.raises(UserError, match=f"made to fail with {status}"):
            upload_folder(folder, "user/stories")
        hub.failures.clear()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("POST /api/repos", [1, 2]),
        ("GET /api/models", [1, 2]),
        ("/commit/", [1, 2]),
        ("preupload", [1, 2, 4, 8, 8]),
        ("/tree/", [1, 2, 4, 8, 8]),
        ("PUT", [1, 2, 4, 8, 8]),
    ],
)
@pytest.mark.parametrize("action", [503, "cut"])
def test_it_waits_as_the_documentation_says(hub, folder, waits, where, expected, action):
    hub.fail(where, action, times=99)
    with pytest.raises(UserError):
        upload_folder(folder, "user/stories")
    assert waits == expected


def test_pages_of_other_kinds_of_repositories(hub, folder):
    upload_folder(folder, "user/texts", repo_type="dataset")
    again = upload_folder(folder, "user/texts", repo_type="dataset")
    assert again.url == f"{hub.url}/datasets/user/texts/commit/{again.commit}"


def test_pushes_at_once_from_several_threads_each_arrive_or_say_why(hub, tmp_path, waits):
    """Into repositories of their own all arrive; into one, none is written over, and what is there is of one push."""
    told, lock = {}, threading.Lock()

    def push(number, name):
        made = tmp_path / f"made {number}"
        made.mkdir()
        (made / "config.json").write_text(json.dumps({"number": number}))
        (made / "model.safetensors").write_bytes(b"%d" % number * 1000)
        try:
            sent = upload_folder(made, name, base=base if name == "user/one" else None)
            result = sent.commit
        except UserError as error:
            result = error
        with lock:
            told[number] = result

    hub.make("user/one")
    base = hub.repo("user/one").branches["main"]
    names = [*(f"user/own{number}" for number in range(3)), "user/one", "user/one", "user/one"]
    threads = [threading.Thread(target=push, args=each) for each in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, name in enumerate(names[:3]):
        assert told[number] == hub.repo(name).branches["main"]
        assert json.loads(contents(hub, name=name)["config.json"]) == {"number": number}
    arrived = [number for number in (3, 4, 5) if isinstance(told[number], str)]
    assert len(arrived) == 1
    assert all(isinstance(told[number], ChangedError) for number in {3, 4, 5} - set(arrived))
    (number,) = arrived
    assert contents(hub, name="user/one")["model.safetensors"] == b"%d" % number * 1000


@pytest.mark.parametrize("about", ["user/stories", "user/stories@next", "HOST"])
def test_no_line_names_an_address_twice(monkeypatch, about):
    """Whatever goes wrong: neither the Hub's address nor the repository stands in a line twice."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://hub.example:8080")
    about = about.replace("HOST", "hub.example:8080")
    url = "http://hub.example:8080/user/stories/resolve/main/config.json"

    def answer(kind, status):
        request = httpx.Request("GET", url)
        return kind(f"{status} for url: {url}", response=httpx.Response(status, request=request), server_message="no")

    statuses = [401, 402, 403, 404, 408, 409, 412, 418, 429, 500, 501, 502, 503, 504, 507]
    kinds = [errors.GatedRepoError, errors.DisabledRepoError, errors.RevisionNotFoundError]
    kinds += [errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError]
    found = [answer(errors.HfHubHTTPError, status) for status in statuses] + [answer(kind, 404) for kind in kinds]
    found += [httpx.ConnectError("refused"), httpx.ReadTimeout("silent"), httpx.LocalProtocolError("bad header")]
    found += [errors.LocalTokenNotFoundError(), errors.OfflineModeIsEnabled(), OSError(28, "No space left")]
    for error in found:
        line = str(hub_error(about, error))
        assert line.count("hub.example:8080") <= 1, line
        assert line.count("user/stories") <= 1, line
        assert "\n" not in line
