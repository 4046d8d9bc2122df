"""A folder reaches the Hub as one commit or not at all, whatever fails."""

import json
import re

import pytest
from hub_store import OTHER_TOKEN, READ_TOKEN, TOKEN

from fundamentallm_hf.hub.upload import split_name, upload_folder
from fundamentallm_hf.portable.errors import UsageError, UserError

WEIGHTS = b"weights " * 1000


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    (made / "attributes" / "formal").mkdir(parents=True)
    (made / "config.json").write_text('{"model_type": "fundamentallm"}')
    (made / "README.md").write_text("---\nlicense: mit\n---\n# Stories\n")
    (made / "model.safetensors").write_bytes(WEIGHTS)
    (made / "attributes" / "formal" / "attribute.json").write_text('{"kind": "words"}')
    (made / ".hidden").write_text("stays")
    return made


NAMES = {"README.md", "attributes/formal/attribute.json", "config.json", "model.safetensors"}


def contents(repo, revision="main"):
    return {name: file.content for name, file in repo.find(revision).files.items() if name != ".gitattributes"}


def test_a_folder_becomes_one_commit_of_a_new_repository(hub, folder):
    sent = upload_folder(folder, "user/stories", message="Tell stories", description="At length.")
    repo = hub.repo("user/stories")
    assert contents(repo).keys() == NAMES
    assert contents(repo)["model.safetensors"] == WEIGHTS
    assert repo.find("main").files["model.safetensors"].sha256 is not None
    assert (sent.commit, sent.changed, sent.pull_request) == (repo.branches["main"], True, None)
    assert sent.url == f"{hub.url}/user/stories/commit/{sent.commit}"
    assert sent.files == {name: (folder / name).stat().st_size for name in NAMES}
    assert len(repo.commits) == 2
    assert (repo.find("main").title, repo.find("main").description) == ("Tell stories", "At length.")
    assert not repo.private


def test_what_is_there_already_is_not_sent_again(hub, folder):
    first = upload_folder(folder, "user/stories")
    again = upload_folder(folder, "user/stories")
    assert (again.commit, again.changed) == (first.commit, False)
    (folder / "config.json").write_text("{}")
    assert upload_folder(folder, "user/stories").changed
    assert len(hub.asked("PUT /storage")) == 1
    assert len(hub.repo("user/stories").commits) == 3


def test_a_private_repository_is_private_and_a_public_one_is_not_taken_for_one(hub, folder):
    upload_folder(folder, "user/secret", private=True)
    assert hub.repo("user/secret").private
    upload_folder(folder, "user/secret", private=True)
    hub.make("user/open", {"a.txt": "a"})
    with pytest.raises(UserError, match="user/open is there already and everybody can read it"):
        upload_folder(folder, "user/open", private=True)
    assert contents(hub.repo("user/open")).keys() == {"a.txt"}


def test_a_branch_is_made_and_the_others_stay(hub, folder):
    hub.make("user/stories", {"old.txt": "old"})
    before = hub.repo("user/stories").branches["main"]
    sent = upload_folder(folder, "user/stories@next")
    assert hub.repo("user/stories").branches == {"main": before, "next": sent.commit}
    assert contents(hub.repo("user/stories"), "next").keys() == {"old.txt", *NAMES}
    assert upload_folder(folder, "user/new", revision="draft").commit == hub.repo("user/new").branches["draft"]


def test_a_pull_request_changes_no_branch_and_can_be_added_to(hub, folder, monkeypatch):
    hub.make("user/stories", {"old.txt": "old"})
    before = hub.repo("user/stories").branches["main"]
    monkeypatch.setenv("HF_TOKEN", OTHER_TOKEN)  # of somebody who may read it only
    sent = upload_folder(folder, "user/stories", create_pr=True)
    assert hub.repo("user/stories").branches == {"main": before}
    assert (sent.pull_request, sent.url) == ("refs/pr/1", f"{hub.url}/user/stories/discussions/1")
    assert contents(hub.repo("user/stories"), "refs/pr/1").keys() == {"old.txt", *NAMES}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (folder / "more.txt").write_text("more")
    upload_folder(folder, "user/stories", revision="refs/pr/1")
    assert "more.txt" in contents(hub.repo("user/stories"), "refs/pr/1")
    with pytest.raises(UserError, match="no such revision"):
        upload_folder(folder, "user/stories", revision="refs/pr/7")


def test_files_of_an_older_model_can_be_taken_out_in_the_same_commit(hub, folder):
    hub.make("user/stories", {"model-1-of-2.safetensors": "a", "attributes/sad/words.tsv": "b", "notes.md": "c"})
    upload_folder(folder, "user/stories", delete=("model*.safetensors", "attributes/*"))
    assert contents(hub.repo("user/stories")).keys() == {"notes.md", *NAMES}
    assert len(hub.repo("user/stories").commits) == 2


def test_a_dry_run_asks_nobody(hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    sent = upload_folder(folder, "user/stories", dry_run=True)
    assert sent.files.keys() == NAMES
    assert (sent.commit, sent.changed, sent.url) == (None, False, "")
    assert not hub.requests


def test_other_kinds_of_repositories(hub, folder):
    upload_folder(folder, "user/texts", repo_type="dataset")
    assert contents(hub.repo("user/texts", "dataset")).keys() == NAMES


@pytest.mark.parametrize("status", [429, 500, 504])
@pytest.mark.parametrize("where", ["POST /api/repos", "GET /api/models", "preupload", "lfs", "PUT", "/commit/"])
def test_a_busy_hub_is_asked_again(hub, folder, waits, where, status):
    hub.fail(where, status)
    said = []
    upload_folder(folder, "user/stories", notice=said.append)
    assert contents(hub.repo("user/stories")).keys() == NAMES
    assert len(hub.repo("user/stories").commits) == 2
    assert said == [f"the Hub answers {status}: trying again in 1 s"]
    assert len(waits) == 1


def test_the_hub_says_how_long_to_wait(hub, folder, waits):
    hub.fail("/commit/", (429, {"Retry-After": "7"}))
    hub.fail("PUT", (429, {"Retry-After": "5"}))
    hub.fail("GET /api/models", (429, {"ratelimit": '"api";r=0;t=9'}))
    upload_folder(folder, "user/stories")
    assert waits == [9, 6, 7]  # huggingface_hub adds a second of its own
    hub.fail("GET /api/models", (429, {"Retry-After": "3000"}), times=9)
    with pytest.raises(UserError) as caught:
        upload_folder(folder, "user/stories")
    assert str(caught.value).endswith("asks for fewer requests; try again in 3000 seconds")


@pytest.mark.parametrize("where", ["POST /api/repos", "GET /api/models", "preupload", "lfs", "PUT", "/commit/"])
def test_a_broken_connection_is_made_again(hub, folder, waits, where):
    hub.fail(where, "cut", times=2)
    upload_folder(folder, "user/stories")
    assert contents(hub.repo("user/stories")).keys() == NAMES
    assert len(hub.repo("user/stories").commits) == 2


@pytest.mark.parametrize("where", ["GET /api/models", "preupload", "PUT", "/commit/"])
def test_a_silent_hub_is_not_waited_for_for_ever(hub, folder, waits, where):
    hub.fail(where, ("stall", 3))
    said = []
    upload_folder(folder, "user/stories", silence=0.3, notice=said.append)
    assert len(hub.repo("user/stories").commits) == 2
    assert said == ["the connection broke: trying again in 1 s"]


@pytest.mark.parametrize("action", ["lost", "half"])
def test_a_commit_whose_answer_is_lost_is_made_once(hub, folder, waits, action):
    hub.fail("/commit/", action)
    sent = upload_folder(folder, "user/stories")
    repo = hub.repo("user/stories")
    assert len(repo.commits) == 2
    assert len(hub.asked("/commit/")) == 1
    assert (sent.commit, sent.changed) == (repo.branches["main"], True)
    assert sent.url == f"{hub.url}/user/stories/commit/{sent.commit}"


def test_a_lost_answer_to_a_pull_request_is_said_and_not_asked_for_twice(hub, folder, waits):
    hub.make("user/stories")
    hub.fail("/commit/", "lost")
    with pytest.raises(UserError, match=r"may have been opened or not: look at .*/user/stories/discussions before"):
        upload_folder(folder, "user/stories", create_pr=True)
    assert len(hub.repo("user/stories").pull_requests) == 1


def test_somebody_elses_commit_in_between_is_not_written_over(hub, folder, waits):
    hub.make("user/stories", {"config.json": "old"})

    original = hub.next_failure

    def meanwhile(request):
        if "/commit/" in request:
            hub.make("user/stories", {"config.json": "theirs"})
        return original(request)

    hub.next_failure = meanwhile
    with pytest.raises(UserError, match="was changed by somebody else meanwhile"):
        upload_folder(folder, "user/stories")
    assert contents(hub.repo("user/stories")) == {"config.json": b"theirs"}


def test_a_commit_that_arrives_while_it_is_sent_again_is_made_once(hub, folder, waits):
    original, asked = hub.next_failure, []

    def late(request):
        if "/commit/" in request:
            asked.append(request)
            if len(asked) == 2:  # the first, of which nothing was heard, is carried out only now
                hub.make("user/stories", {name: (folder / name).read_bytes() for name in NAMES})
        return original(request)

    hub.next_failure = late
    hub.fail("/commit/", "cut")
    sent = upload_folder(folder, "user/stories")
    assert len(asked) == 2
    assert sent.commit == hub.repo("user/stories").branches["main"]
    assert len(hub.repo("user/stories").commits) == 2


@pytest.mark.parametrize("failure", [503, "cut"])
@pytest.mark.parametrize("where", ["preupload", "PUT", "/commit/"])
def test_a_hub_that_stays_away_changes_nothing_and_the_next_try_goes_on(hub, folder, waits, where, failure):
    hub.make("user/stories", {"config.json": "old"})
    hub.fail(where, failure, times=99)
    with pytest.raises(UserError) as caught:
        upload_folder(folder, "user/stories")
    expected = "fails at the moment (503)" if failure == 503 else "is out of reach: the connection to 127.0.0.1"
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(hub.repo("user/stories")) == {"config.json": b"old"}
    hub.failures.clear()
    sent_before = len(hub.large)
    upload_folder(folder, "user/stories")
    assert contents(hub.repo("user/stories")).keys() == NAMES
    puts = [request for request in hub.asked("PUT") if request]
    assert where == "PUT" or len(puts) == 1
    assert sent_before == (1 if where == "/commit/" else 0)


def test_large_files_that_arrived_before_a_failure_are_not_sent_again(hub, folder, waits):
    (folder / "model-2.safetensors").write_bytes(b"others " * 1000)
    hub.fail("PUT", 503, times=99, after=1)
    with pytest.raises(UserError, match=r"fails at the moment \(503\); try again later"):
        upload_folder(folder, "user/stories")
    assert contents(hub.repo("user/stories")) == {}
    (kept,) = hub.large
    hub.failures.clear()
    before = len(hub.requests)
    upload_folder(folder, "user/stories")
    sent = [request for request in hub.requests[before:] if request.startswith("PUT")]
    assert len(sent) == 1
    assert kept not in sent[0]
    assert contents(hub.repo("user/stories")).keys() == {"model-2.safetensors", *NAMES}


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        (None, "user/stories", "you are not logged in to 127.0.0.1:PORT: log in with `hf auth login`, or set HF_TOKEN"),
        ("hf_" + "x" * 34, "user/stories", "127.0.0.1:PORT does not accept your token: log in with"),
        (READ_TOKEN, "user/stories", "user/stories is closed to your token (You don't have the rights"),
        (TOKEN, "other/stories", "other/stories is closed to your token (You don't have the rights"),
        (READ_TOKEN, "user/there", "user/there is closed to your token (Forbidden: you must use a write token"),
        (OTHER_TOKEN, "user/there", "user/there is closed to your token"),
        ("hf_with\na line", "user/stories", "does not accept your token"),
        ("hf_\x01" + "secret" * 5, "user/stories", "does not accept your token"),
        ("hf_é" + "secret" * 5, "user/stories", "the token or another header holds what HTTP does not allow"),
    ],
)
def test_who_may_not_write_is_told_so(hub, folder, monkeypatch, token, name, message):
    hub.make("user/there", {"a.txt": "a"})
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError) as caught:
        upload_folder(folder, name)
    assert message in re.sub(r":\d{4,5}\b", ":PORT", str(caught.value))
    assert "hf_" not in str(caught.value).replace("hf_...", "")
    assert "secret" not in str(caught.value)
    assert ("model", "other/stories") not in hub.repos
    assert contents(hub.repo("user/there")) == {"a.txt": b"a"}


def test_metadata_that_the_hub_refuses_is_named(hub, folder):
    (folder / "README.md").write_text("---\nlicense: [1]\n---\n# Stories\n")
    with pytest.raises(UserError, match='cannot have this card: "license" must be a string; correct the top of README'):
        upload_folder(folder, "user/stories")
    assert contents(hub.repo("user/stories")) == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stories", "the repository has to be a name such as user/stories but is 'stories'"),
        ("user/../stories", "give a name such as user/name"),
        ("a/b/c", "give a name such as user/name"),
        ("user/sto ries", "give a name such as user/name"),
        ("user/stories@", "ends in @ without a revision"),
        ("user/stories@../main", "revision has to be a branch, tag or commit but is '../main'"),
    ],
)
def test_names_that_cannot_be_are_refused_before_anything_is_asked(hub, folder, name, message):
    with pytest.raises(UserError) as caught:
        upload_folder(folder, name)
    assert message in str(caught.value)
    assert not hub.requests


def test_two_revisions_are_one_too_many():
    with pytest.raises(UsageError, match="name one of the two"):
        split_name("user/name@v1", "v2")


def test_a_token_given_as_such_is_used_and_never_told(hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    upload_folder(folder, "user/stories", token=TOKEN)
    assert contents(hub.repo("user/stories")).keys() == NAMES
    said = []
    hub.fail("/commit/", 500)
    hub.fail("PUT", 500)
    (folder / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    upload_folder(folder, "user/stories", token=TOKEN, notice=said.append)
    assert said
    assert not re.search("hf_|Signature|http", json.dumps(said))
