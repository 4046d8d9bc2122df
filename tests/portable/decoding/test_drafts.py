"""Draft tables: their predictions, the contexts that they keep, and how a drafter learns."""

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fundamentallm_hf import FundamentaLLMForCausalLM
from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.model_io.model_folder import write_model_folder
from fundamentallm_hf.portable.decoding.drafts import Drafter, NgramTable, context_keys
from fundamentallm_hf.portable.decoding.sidecar_files import own_draft_table
from fundamentallm_hf.portable.decoding.sidecar_names import DRAFT_FILE
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.training.draft_training import add_draft, count_ngrams

TEXTS = st.lists(st.integers(0, 3), min_size=2, max_size=60)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 5))
def test_a_whole_table_gives_the_commonest_next_token_of_the_longest_context_seen_twice(text, order):
    table = count_ngrams(text, order, entries=10**6)
    for end in range(1, len(text)):
        found = table.next(text[:end])
        assert found is not None
        for length in range(min(order, end), 0, -1):
            context = text[end - length : end]
            after = [text[i] for i in range(length, len(text)) if text[i - length : i] == context]
            if len(after) >= 2:
                assert after.count(found[0]) == max(map(after.count, after))
                break


@settings(deadline=None)
@given(TEXTS)
def test_fewer_entries_are_the_ones_that_help_most(text):
    whole, part = count_ngrams(text, 3, entries=10**6), count_ngrams(text, 3, entries=2)
    assert len(part.entries) <= 3
    assert part.entries.items() <= whole.entries.items()


@pytest.mark.parametrize("tokens", [[], [3], [1, 2], [1, 2] * 50, [70_000, 5] * 9])
def test_a_table_is_the_same_when_it_is_read_again(tokens, tmp_path):
    table = count_ngrams(tokens, 4)
    table.save(tmp_path / "draft.safetensors")
    again = NgramTable.load(tmp_path / "draft.safetensors")
    assert again.entries.keys() == table.entries.keys()
    for key, (token, chance) in table.entries.items():
        assert again.entries[key][0] == token
        assert again.entries[key][1] == pytest.approx(chance, abs=0.01)


def test_another_file_is_refused(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "draft.safetensors")
    with pytest.raises(ValueError, match="is not a draft table"):
        NgramTable.load(tmp_path / "draft.safetensors")


def test_contexts_of_other_lengths_have_other_keys():
    keys = [key for tokens in ([0, 0, 0], [1, 0], [0, 1]) for key in context_keys(tokens, 3)]
    assert len(set(keys)) == 6


def test_a_repeated_text_is_drafted_from_itself():
    text = list(range(20)) * 2
    assert Drafter()(text + list(range(9)), 12).tokens == [9, 10, 11, 12, 13]
    assert Drafter()(text, 12).tokens[:1] == [0]
    assert Drafter()(list(range(30)), 5).tokens == []


def test_a_drafter_that_is_often_wrong_drafts_less_and_one_that_is_right_more():
    table = NgramTable(1, {0: (1, 0.8)})
    fresh, wrong, right = Drafter(table), Drafter(table), Drafter(table)
    for _ in range(50):
        wrong.learn(wrong([1, 2], 12), 0)
        drafted = right([1, 2], 12)
        right.learn(drafted, len(drafted.tokens))
    counts = [len(each([1, 2], 12).tokens) for each in (wrong, fresh, right)]
    assert counts == sorted(set(counts))
    assert counts[-1] <= 12
    assert Drafter(table)([1, 2], 2).tokens == [1, 1]


def test_a_draft_is_made_for_a_folder_and_travels_with_the_model(shakespeare, tmp_path):
    folder = write_model_folder(tmp_path / "model", shakespeare, shakespeare.tokenizer)
    assert not (folder / DRAFT_FILE).exists()
    (tmp_path / "text.txt").write_text("To be or not to be. To be or not to be.", encoding="utf-8")
    result = CliRunner().invoke(cli, ["draft", str(folder), str(tmp_path / "text.txt")])
    assert (result.output.strip(), result.exit_code) == (str(folder / DRAFT_FILE), 0)
    model = FundamentaLLMForCausalLM.from_pretrained(folder)
    assert own_draft_table(model).entries
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / DRAFT_FILE).read_bytes() == (folder / DRAFT_FILE).read_bytes()


@pytest.mark.parametrize("text", ["", "x"])
def test_what_cannot_become_a_draft_is_refused(text, shakespeare, tmp_path):
    with pytest.raises(UserError, match="has to be a model folder"):
        add_draft(tmp_path / "none", text)
    with pytest.raises(UserError, match="tokenizer"):
        add_draft(tmp_path, text)
    shakespeare.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="text is empty"):
        add_draft(tmp_path, text)


def test_a_draft_of_other_tokens_is_not_used(shakespeare, tmp_path):
    folder = write_model_folder(tmp_path / "model", shakespeare, shakespeare.tokenizer)
    count_ngrams([5, 9999, 5, 9999, 5], 2).save(folder / DRAFT_FILE)
    assert own_draft_table(FundamentaLLMForCausalLM.from_pretrained(folder)) is None


@pytest.mark.parametrize("content", [b"", b"no table", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_draft_that_cannot_be_read_costs_a_warning_and_no_text(content, shakespeare, tmp_path):
    folder = write_model_folder(tmp_path / "model", shakespeare, shakespeare.tokenizer)
    (folder / DRAFT_FILE).write_bytes(content)
    model = FundamentaLLMForCausalLM.from_pretrained(folder)
    assert own_draft_table(model) is None
    ids = shakespeare.tokenizer("The king", return_tensors="pt").input_ids
    assert torch.equal(model.generate(ids, max_new_tokens=5), shakespeare.generate(ids, max_new_tokens=5))


def test_a_draft_is_no_weight(shakespeare, tmp_path):
    from fundamentallm_hf.publishing.model_facts import read_facts

    folder = write_model_folder(tmp_path / "model", shakespeare, shakespeare.tokenizer)
    before = read_facts(folder)
    count_ngrams([5, 6, 5, 6, 5], 2).save(folder / DRAFT_FILE)
    after = read_facts(folder)
    assert (after.parameters, after.weight_bytes) == (before.parameters, before.weight_bytes)


def test_processors_suggest_what_comes_next(shakespeare):
    from fundamentallm_hf.portable.decoding.lean_loop import PassCounter

    ids = shakespeare.tokenizer("The king", return_tensors="pt").input_ids
    counter = PassCounter()
    pattern = " shall be remembered forever, [a-z]{2} and his crown shall be broken"
    tokens = shakespeare.generate(
        ids, max_new_tokens=80, do_sample=False, pattern=pattern, stopping_criteria=[counter], eos_token_id=1
    )
    added = tokens.shape[1] - ids.shape[1]
    assert added > 60
    assert counter.passes < 12
