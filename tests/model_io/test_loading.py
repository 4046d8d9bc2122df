"""Where models are searched for, and which are refused."""

import pytest
import torch
from conftest import FIXTURES

from fundamentallm_hf import Generator, UserError, load_model
from fundamentallm_hf.model_io.loading import choose_device, choose_dtype
from fundamentallm_hf.portable.errors import UsageError

MODEL = FIXTURES / "learned" / "final_model.pt"


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", torch.bfloat16])
@pytest.mark.parametrize("source", [MODEL, None])
def test_a_model_writes_in_the_precision_that_is_asked_for(source, name):
    model = load_model(source, device="cpu", dtype=name)
    assert model.dtype == (getattr(torch, name) if isinstance(name, str) else name)
    assert Generator(model, notice=lambda text: None).complete("To be", max_tokens=3, seed=1)[0].tokens == 3


def test_auto_leaves_the_weights_as_they_are():
    assert choose_dtype("auto") is choose_dtype(None) is None
    assert load_model(MODEL, device="cpu", dtype="auto").dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype has to be one of auto, float32, float16, bfloat16 but is 'int8'"),
        ({"device": "tpu"}, "device has to be one of auto, cpu, cuda, mps but is 'tpu'"),
        ({"device": "cuda:x"}, "device has to be a name such as cuda or cuda:1 but is 'cuda:x'"),
        ({"revision": "main"}, "revision is 'main', but only a model on the Hub has revisions"),
    ],
)
def test_what_no_machine_can_do_is_a_wrong_use(options, message):
    with pytest.raises(UsageError) as caught:
        load_model(MODEL, **options)
    assert message in str(caught.value)


def test_two_revisions_are_one_too_many():
    with pytest.raises(UsageError, match="name one of the two"):
        load_model("user/name@v1", revision="v2")


def test_a_device_that_is_not_here_is_a_failure():
    with pytest.raises(UserError, match="torch finds no such device") as caught:
        choose_device("cuda:99")
    assert not isinstance(caught.value, UsageError)
