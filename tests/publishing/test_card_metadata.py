"""Metadata that the Hub would refuse is refused here, in one line."""

import pytest

from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.publishing.card_metadata import check_metadata

RESULT = {
    "task": {"type": "text-generation"},
    "dataset": {"type": "user/data", "name": "Data"},
    "metrics": [{"type": "perplexity", "value": 2.5}],
}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"license": "apache-2.0", "language": "en", "datasets": "roneneldan/TinyStories", "base_model": ["user/base"]},
        {"language": ["de", "zh-Hant", "code", "multilingual"], "datasets": ["imdb"], "inference": False},
        {"widget": [{"text": "a", "example_title": "b"}], "own": {"anything": [1]}},
        {"model-index": [{"name": "a", "results": [RESULT]}]},
    ],
)
def test_what_the_hub_takes_is_taken(metadata):
    check_metadata(metadata)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"license": "Apache 2.0"},
            "license .* has to be a licence id such as apache-2.0 or other but is 'Apache 2.0'",
        ),
        ({"license": ["mit"]}, "license .* has to be text"),
        ({"language": "English"}, "language .* has to be ISO 639 codes such as en but is 'English'"),
        ({"tags": "a", "datasets": ["a/b/c"]}, "datasets .* has to be ids on the Hub such as user/name but is 'a/b/c'"),
        ({"base_model": "./local"}, "base_model .* has to be ids on the Hub"),
        ({"base_model": "/home/me/model"}, "base_model .* has to be ids on the Hub"),
        ({"tags": [1]}, "tags .* has to be a list of texts but is"),
        ({"tags": [" "]}, "tags .* has to be a list of texts but is"),
        ({"widget": "Hello"}, "widget .* has to be a list of examples"),
        ({"model-index": [{"name": "a", "results": [{"task": {}}]}]}, "model-index .* cannot be read"),
        ({"model-index": "none"}, "model-index .* cannot be read"),
        (
            {"model-index": [{"name": "a", "results": [RESULT | {"metrics": [{"type": "p", "value": float("nan")}]}]}]},
            "model-index .* has to be finite figures",
        ),
    ],
)
def test_what_the_hub_refuses_is_refused_before(metadata, message):
    with pytest.raises(UserError, match=message) as caught:
        check_metadata(metadata)
    assert "\n" not in str(caught.value)
