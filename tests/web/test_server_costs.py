"""What is kept of the page's components is what gradio would make anew, and no session sees another's."""

import copy

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from gradio.state_holder import SessionState

from fundamentallm_hf import Generator, load_model
from fundamentallm_hf.web.page import Page
from fundamentallm_hf.web.runner import Writer
from fundamentallm_hf.web.server_costs import keep_configs


@pytest.fixture(scope="module")
def blocks():
    page = Page(Writer(Generator(load_model(device="cpu"), notice=lambda text: None))).build()
    page.expected = copy.deepcopy(SessionState(page).config_values)
    keep_configs(page)
    return page


def test_a_session_starts_as_without_it(blocks):
    assert len(blocks.expected) > 100
    assert SessionState(blocks).config_values == blocks.expected


def test_a_session_that_changes_its_components_changes_no_other(blocks):
    session = SessionState(blocks)
    for key, block in blocks.blocks.items():
        session._update_value_in_config(key, "changed")
        session.config_values[key]["props"]["label"] = "changed"
        if block.get_block_name() == "button":
            session[key] = type(block)(value="another", render=False)
    assert session.config_values != blocks.expected
    assert SessionState(blocks).config_values == blocks.expected


def test_components_describe_themselves_once(blocks, monkeypatch):
    asked = []
    for kind in {type(block) for block in blocks.blocks.values()}:
        monkeypatch.setattr(kind, "get_config", lambda self, cls=None: asked.append(self) or {})
    SessionState(blocks)
    assert asked == []
