"""FundamentaLLM's character-level language models in the Hugging Face ecosystem.

Importing this package registers the Auto classes, so that `pipeline("text-generation", model=...)` knows the models:
immediately, or, because nothing heavy is imported before it is needed, when transformers is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fundamentallm_hf.model_io.registration_hook import register_with_transformers

if TYPE_CHECKING:
    from fundamentallm_hf.generation.completion import Completion as Completion
    from fundamentallm_hf.generation.generator import Generator as Generator
    from fundamentallm_hf.model_io.checkpoint import convert_checkpoint as convert_checkpoint
    from fundamentallm_hf.model_io.loading import load_model as load_model
    from fundamentallm_hf.portable.controls.bad_words import BadWordsLogitsProcessor as BadWordsLogitsProcessor
    from fundamentallm_hf.portable.controls.controlled_generate import controlled_generate as controlled_generate
    from fundamentallm_hf.portable.controls.must_include import (
        MustIncludeLogitsProcessor as MustIncludeLogitsProcessor,
    )
    from fundamentallm_hf.portable.controls.word_repetition import (
        WordRepetitionLogitsProcessor as WordRepetitionLogitsProcessor,
    )
    from fundamentallm_hf.portable.controls.word_weighting import (
        WordWeightsLogitsProcessor as WordWeightsLogitsProcessor,
    )
    from fundamentallm_hf.portable.errors import UserError as UserError
    from fundamentallm_hf.portable.guides.attributes import Attribute as Attribute
    from fundamentallm_hf.portable.guides.guided_attributes import (
        GuidedAttributesLogitsProcessor as GuidedAttributesLogitsProcessor,
    )
    from fundamentallm_hf.portable.model.configuration_fundamentallm import FundamentaLLMConfig as FundamentaLLMConfig
    from fundamentallm_hf.portable.model.modeling_fundamentallm import (
        FundamentaLLMForCausalLM as FundamentaLLMForCausalLM,
    )
    from fundamentallm_hf.portable.model.modeling_fundamentallm import FundamentaLLMModel as FundamentaLLMModel
    from fundamentallm_hf.portable.structured.structured_output import (
        WholeTextLogitsProcessor as WholeTextLogitsProcessor,
    )
    from fundamentallm_hf.settings.generation_settings import GenerationSettings as GenerationSettings
    from fundamentallm_hf.training.attribute_training import AttributeSamples as AttributeSamples
    from fundamentallm_hf.training.attribute_training import AttributeSource as AttributeSource
    from fundamentallm_hf.training.attribute_training import train_attribute as train_attribute

    from .evaluation import evaluate as evaluate

    __version__: str

_HOME = {
    "Attribute": "portable.guides.attributes",
    "AttributeSamples": "training.attribute_training",
    "AttributeSource": "training.attribute_training",
    "BadWordsLogitsProcessor": "portable.controls.bad_words",
    "Completion": "generation.completion",
    "FundamentaLLMConfig": "portable.model.configuration_fundamentallm",
    "FundamentaLLMForCausalLM": "portable.model.modeling_fundamentallm",
    "FundamentaLLMModel": "portable.model.modeling_fundamentallm",
    "GenerationSettings": "settings.generation_settings",
    "Generator": "generation.generator",
    "GuidedAttributesLogitsProcessor": "portable.guides.guided_attributes",
    "MustIncludeLogitsProcessor": "portable.controls.must_include",
    "UserError": "portable.errors",
    "WholeTextLogitsProcessor": "portable.structured.structured_output",
    "WordRepetitionLogitsProcessor": "portable.controls.word_repetition",
    "WordWeightsLogitsProcessor": "portable.controls.word_weighting",
    "controlled_generate": "portable.controls.controlled_generate",
    "convert_checkpoint": "model_io.checkpoint",
    "evaluate": "evaluation",
    "load_model": "model_io.loading",
    "train_attribute": "training.attribute_training",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Looked up on first access, because that takes time which `--help` does not need.
        from importlib.metadata import version

        return version("fundamentallm-hf")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]


# The models, and `push_to_hub` on them.
register_with_transformers("model_io.registration", "publishing.push_to_hub")
