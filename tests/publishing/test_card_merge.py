"""A card is rewritten without losing people's changes, additions and deletions."""

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.publishing.card_merge import metadata_of, write_card

METADATA = {"license": "mit", "tags": ["a", "b"], "pipeline_tag": "text-generation"}
SECTIONS = {"title": "# Stories", "use": "Use it.", "size": "It is small."}


def result(name, value):
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": "user/data", "name": name},
        "metrics": [{"type": "perplexity", "value": value}],
    }


def index(*results):
    return {"model-index": [{"name": "stories", "results": list(results)}]}


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029", exclude_categories=["Cs", "Cc"]))
metadata = st.dictionaries(
    st.sampled_from(["license", "tags", "language", "base_model", "widget"]), st.lists(texts, min_size=1, unique=True)
)
sections = st.dictionaries(st.sampled_from(["title", "use", "size", "limits"]), texts)


@given(metadata, sections)
@example({"tags": ["stories", "a\u3000"], "license": ["\xa0"]}, {})
def test_to_write_the_same_again_changes_nothing(metadata, sections):
    card = write_card(metadata, sections)
    assert metadata_of(card) == metadata
    assert write_card(metadata, sections, card) == card


@given(metadata, sections, metadata, sections)
def test_a_card_that_nobody_touched_is_as_if_it_were_new(metadata, sections, later, later_sections):
    again = write_card(later, later_sections, write_card(metadata, sections))
    assert metadata_of(again) == later
    for text in later_sections.values():
        assert text.strip() in again


@given(texts, sections, sections)
def test_text_of_ones_own_stays(own, sections, later):
    own = f"Mine: {own}."
    card = write_card({}, sections)
    for edited in (f"{own}\n{card}", f"{card}\n{own}\n"):
        once = write_card({}, later, edited)
        assert own in once
        assert own in write_card({}, sections, once)


def test_a_section_that_was_changed_or_deleted_stays_so():
    card = write_card(METADATA, SECTIONS)
    changed = card.replace("Use it.", "Use it well.")
    start, end = changed.index("<!-- fundamentallm: size"), changed.index("<!-- /fundamentallm: size -->")
    deleted = changed[:start] + changed[end + len("<!-- /fundamentallm: size -->\n") :]
    for _ in range(2):
        deleted = write_card(METADATA, SECTIONS | {"use": "Other.", "size": "It is big.", "limits": "None."}, deleted)
        assert "Use it well." in deleted
        assert "Other." not in deleted
        assert "It is big." not in deleted
        assert deleted.count("None.") == 1
    assert deleted.index("Use it well.") < deleted.index("None.")


def test_a_section_cannot_end_itself():
    text = "Before\n<!-- /fundamentallm: use -->\nAfter\n<!-- fundamentallm wrote {} -->"
    card = write_card(METADATA, SECTIONS | {"use": text})
    assert write_card(METADATA, SECTIONS | {"use": text}, card) == card
    again = write_card(METADATA, SECTIONS | {"use": "Short."}, card)
    assert "Short." in again
    assert "After" not in again


def test_a_section_comes_and_goes_with_what_it_is_about():
    card = write_card(METADATA, SECTIONS)
    gone = write_card(METADATA, {"title": "# Stories", "size": "It is small."}, card)
    assert "Use it." not in gone
    back = write_card(METADATA, SECTIONS, gone)
    assert back.index("# Stories") < back.index("Use it.") < back.index("It is small.")


def test_metadata_that_was_changed_added_or_deleted_stays_so():
    card = write_card(METADATA, SECTIONS)
    edited = card.replace("license: mit", "license: apache-2.0\nlanguage: [de]").replace(
        "pipeline_tag: text-generation\n", ""
    )
    edited = edited.replace("- b\n", "- mine\n")
    for _ in range(2):
        edited = write_card(METADATA | {"license": "other", "tags": ["a", "b", "c"]}, SECTIONS, edited)
        assert metadata_of(edited) == {"license": "apache-2.0", "language": ["de"], "tags": ["a", "mine", "c"]}


def test_results_of_ones_own_stay_and_the_others_are_renewed():
    mine = result("mine", 3.0)
    card = write_card(index(result("held out", 2.0)), SECTIONS)
    own = metadata_of(card)
    own["model-index"][0]["results"].append(mine)
    edited = card.replace(card.split("---\n")[1], yaml.safe_dump(own))
    again = write_card(index(result("held out", 1.5), result("other", 1.0)), SECTIONS, edited)
    (model,) = metadata_of(again)["model-index"]
    assert model["name"] == "stories"
    assert model["results"] == [mine, result("held out", 1.5), result("other", 1.0)]
    # One that somebody put right by hand is theirs.
    mended = again.replace("value: 1.5", "value: 1.25")
    (model,) = metadata_of(write_card(index(result("held out", 1.5), result("other", 1.0)), SECTIONS, mended))[
        "model-index"
    ]
    assert model["results"] == [mine, result("held out", 1.25), result("other", 1.0)]


def test_what_is_given_counts_as_written_by_somebody():
    card = write_card(METADATA, SECTIONS, given={"license": "cc0-1.0"})
    assert metadata_of(card)["license"] == "cc0-1.0"
    assert metadata_of(write_card(METADATA, SECTIONS, card))["license"] == "cc0-1.0"
    assert metadata_of(write_card(METADATA, SECTIONS, card, given={"license": "wtfpl"}))["license"] == "wtfpl"


def test_a_card_from_elsewhere_keeps_its_text_title_and_metadata():
    own = "---\r\n# why\r\nlicense: gpl-3.0\r\ntags: mine\r\n---\r\n\r\n# Hers\r\n\r\nWritten by hand.\r\n"
    card = write_card(METADATA, SECTIONS, own)
    assert metadata_of(card) == {"license": "gpl-3.0", "tags": ["mine", "a", "b"], "pipeline_tag": "text-generation"}
    assert "# Hers\n\nWritten by hand.\n" in card
    assert "# Stories" not in card
    assert card.index("Written by hand.") < card.index("Use it.")
    assert write_card(METADATA, SECTIONS, card) == card


def test_metadata_that_stays_as_it_is_keeps_its_form():
    own = "---\n# chosen with care\nlicense: mit   # as agreed\ntags: [a, b]\npipeline_tag: text-generation\n---\n"
    assert write_card(METADATA, SECTIONS, f"{own}# Hers\n").startswith(own)


def test_a_record_that_somebody_damaged_makes_everything_theirs():
    card = write_card(METADATA, SECTIONS).replace('{"metadata"', '{"metadat')
    again = write_card(METADATA | {"license": "other"}, SECTIONS, card)
    assert metadata_of(again)["license"] == "mit"
    assert again.count("Use it.") == 1


@pytest.mark.parametrize("block", ["a: [", "- a\n- b", "1: 2", "text"])
def test_metadata_that_cannot_be_read_is_refused(block):
    with pytest.raises(UserError, match=r"metadata of the README.md") as caught:
        write_card(METADATA, SECTIONS, f"---\n{block}\n---\nHello\n")
    assert "\n" not in str(caught.value)
