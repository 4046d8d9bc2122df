"""Non-public interfaces of huggingface_hub that are used: each test names the one that changed if it fails."""

import inspect
import logging
import warnings

import pytest
from huggingface_hub import HfApi, constants, file_download, hf_hub_download, set_client_factory
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import _http, close_session, get_session, http_backoff, httpx, yaml_dump

from fundamentallm_hf.hub.internals import (
    RequestHook,
    complaints_about_card,
    is_wrong_length,
    says_nothing_new,
    status_in_log,
    tells_of_broken_connection,
    tells_of_resuming,
    wait_in_log,
)


@pytest.fixture
def logged():
    """What huggingface_hub logs."""
    lines, logger = [], logging.getLogger("huggingface_hub")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_clients_are_made_by_the_factory_in_use():
    assert _http._GLOBAL_CLIENT_FACTORY is _http.default_client_factory
    close_session()
    assert _http._GLOBAL_CLIENT is None
    assert get_session() is _http._GLOBAL_CLIENT
    assert isinstance(get_session(), httpx.Client)
    with _http._CLIENT_LOCK:
        pass


def test_a_hook_sees_every_request_whatever_makes_the_client_anew(hub):
    first, seen = get_session(), []

    def whoami():
        http_backoff("GET", f"{hub.url}/api/whoami-v2")
        return len([request for request in seen if request.url.path == "/api/whoami-v2"])

    hook = RequestHook(seen.append)
    assert whoami() == 1
    assert get_session() is first  # nobody's requests are cut off
    close_session()
    assert whoami() == 2
    assert "timeout" in seen[0].extensions
    second = get_session()
    hook.remove()
    assert get_session() is second
    assert whoami() == 2
    assert _http._GLOBAL_CLIENT_FACTORY is _http.default_client_factory


def test_a_factory_that_somebody_sets_meanwhile_stays(hub):
    hook = RequestHook(lambda request: None)
    try:
        theirs = lambda: _http.default_client_factory()  # noqa: E731
        set_client_factory(theirs)
        hook.remove()
        assert _http._GLOBAL_CLIENT_FACTORY is theirs
    finally:
        set_client_factory(_http.default_client_factory)


@pytest.mark.parametrize(("action", "status"), [(503, 503), ((429, {"Retry-After": "5"}), 429), ("cut", None)])
def test_the_log_tells_of_waits_and_their_reason(hub, waits, logged, action, status):
    hub.fail("whoami", action)
    http_backoff("GET", f"{hub.url}/api/whoami-v2")
    reason, wait = logged
    assert status_in_log(reason) == status
    assert tells_of_broken_connection(reason) is (status is None)
    assert wait_in_log(wait) == waits[0]
    assert wait_in_log(reason) is None
    assert not any(says_nothing_new(line) or tells_of_resuming(line) for line in logged)


def test_the_log_tells_of_a_download_that_goes_on_and_of_one_that_does_not(hub, waits, logged):
    hub.make("user/stories", {"model.safetensors": b"weights " * 5000})
    hub.fail("GET /storage", "half")
    hf_hub_download("user/stories", "model.safetensors")
    assert [line for line in logged if tells_of_resuming(line)] == logged[:1]
    hub.make("user/stories", {"model.safetensors": b"others " * 5000})
    logged.clear()
    hub.fail("GET /storage", "cut", times=99)
    with pytest.raises(httpx.TransportError):
        hf_hub_download("user/stories", "model.safetensors")
    assert says_nothing_new(logged[-1])


def test_the_log_tells_of_a_commit_without_changes(hub, logged):
    from huggingface_hub import CommitOperationAdd

    hub.make("user/stories", {"a.txt": "a"})
    HfApi().create_commit("user/stories", [CommitOperationAdd("a.txt", b"a")], commit_message="Again")
    assert [says_nothing_new(line) for line in logged] == [True]


def test_a_download_of_the_wrong_length_is_known(tmp_path, hub):
    hub.make("user/stories", {"a.txt": "four"})
    with (tmp_path / "a").open("wb") as target, pytest.raises(OSError, match="Consistency check failed") as caught:
        file_download.http_get(f"{hub.url}/user/stories/resolve/main/a.txt", target, expected_size=3)
    assert is_wrong_length(caught.value)
    assert not is_wrong_length(OSError(28, "No space left on device"))


def test_what_is_wrong_with_a_card_is_a_list_in_an_answer(hub):
    from huggingface_hub import CommitOperationAdd

    hub.make("user/stories")
    card = b"---\nlicense: [1]\nlibrary_name: 3\n---\n"
    with pytest.raises(ValueError, match="Invalid metadata") as caught:
        HfApi().create_commit("user/stories", [CommitOperationAdd("README.md", card)], commit_message="Card")
    assert complaints_about_card(caught.value) is None
    told = complaints_about_card(caught.value.__cause__)
    assert told == ['"license" must be a string', '"library_name" must be a string']


def test_a_card_without_metadata_is_warned_of_as_a_user_warning(hub):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        HfApi()._validate_yaml("# Stories\n")
    assert [each.category for each in found] == [UserWarning]
    assert "empty or missing yaml metadata" in str(found[0].message)


def test_the_metadata_of_a_card_is_found_and_written_as_by_the_library():
    written = yaml_dump({"license": "mit", "tags": ["a", "ü"]}, sort_keys=False)
    assert written == "license: mit\ntags:\n- a\n- ü\n"
    found = REGEX_YAML_BLOCK.search(f"---\n{written}---\n# Stories\n")
    assert (found[2].strip(), found.end()) == (written.strip(), len(f"---\n{written}---\n"))


def test_the_cache_keeps_which_commit_a_branch_is_where_its_documentation_says(hub):
    repo = hub.make("user/stories", {"a.txt": "a"})
    file = hf_hub_download("user/stories", "a.txt")
    note = file_download.Path(constants.HF_HUB_CACHE) / "models--user--stories" / "refs" / "main"
    assert note.read_text() == repo.branches["main"]
    assert f"snapshots/{repo.branches['main']}/a.txt" in file


def test_public_calls_take_what_is_passed_to_them():
    told = inspect.signature(HfApi.create_commit).parameters
    assert {"parent_commit", "create_pr", "commit_description", "revision"} <= set(told)
    assert "timeout" in inspect.signature(HfApi.model_info).parameters
    assert "free_memory" in inspect.signature(HfApi.preupload_lfs_files).parameters
