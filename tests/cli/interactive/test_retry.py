"""`/retry` of any text that one goes back to, among them those that the model ended at once."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_chat_commands import TEMPLATE
from test_session import Recorder

from fundamentallm_hf import GenerationSettings
from fundamentallm_hf.cli.interactive.session import Session
from fundamentallm_hf.generation.completion import Completion

ENTRIES = ["To be", "My", "/more", "/more", "/retry", "/edit", "/undo", "/redo", "/go 1", "/go 2"]


class Scripted(Session):
    """A session whose model adds what the test says, and that remembers what the model was asked for."""

    reply, asked = "", None

    def _stream(self, request):
        self.asked = request
        seed = self.settings.replace(**request.changes).seed
        return Completion(request.prompt, self.reply, "eos", len(self.reply), seed), 1.0

    def enter(self, typed, reply):
        """The text that was generated after an entry, if one was, and what the model was asked for."""
        self.reply, self.asked = reply, None
        assert self.handle(typed)
        return None if self.asked is None else (self.tree.current, self.asked.prompt, self.asked.chat)


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(ENTRIES), st.sampled_from(["", "", " or", " not"])), max_size=9))
def test_a_text_is_generated_again_next_to_itself_and_from_the_same_prompt(shakespeare, monkeypatch, chat, entries):
    monkeypatch.setattr(shakespeare.tokenizer, "chat_template", TEMPLATE)
    output = Recorder()
    output.editor = lambda text: text + "!"
    session = Scripted(lambda name: shakespeare, None, GenerationSettings(seed=42), output, chat=chat)
    generated = [found for entry in [("To be", ""), *entries] if (found := session.enter(*entry))]
    typed = {node.id for node in session.tree} - {node.id for node, _, _ in generated}
    for node, prompt, messages in generated:
        alike = [each for each in session.tree.children(node.parent) if session.tree.prompt(each.id) == prompt]
        assert session.enter(f"/go {node.id}", "") is None
        again, *asked = session.enter("/retry", "")
        assert again.parent == node.parent
        assert asked == [prompt, messages]
        assert again.seed not in {each.seed for each in alike}
    for number in typed:
        session.enter(f"/go {number}", "")
        again, prompt, _ = session.enter("/retry", "")
        assert (again.parent, prompt) == (number, session.tree.text(number))
