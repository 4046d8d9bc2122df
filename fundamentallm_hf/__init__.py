"""FundamentaLLM's character-level language models in the Hugging Face ecosystem.

Importing this package registers the Auto classes, so that `pipeline("text-generation", model=...)` knows the models:
at once, or, since nothing heavy is imported before it is needed, when transformers is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registration_hook import register_with_transformers

if TYPE_CHECKING:
    from .any_model import controlled_generate as controlled_generate
    from .attributes import Attribute as Attribute
    from .bad_words import BadWordsLogitsProcessor as BadWordsLogitsProcessor
    from .checkpoint import convert_checkpoint as convert_checkpoint
    from .completion import Completion as Completion
    from .configuration_fundamentallm import FundamentaLLMConfig as FundamentaLLMConfig
    from .errors import UserError as UserError
    from .evaluation import evaluate as evaluate
    from .generation import Generator as Generator
    from .guided_attributes import GuidedAttributesLogitsProcessor as GuidedAttributesLogitsProcessor
    from .loading import load_model as load_model
    from .modeling_fundamentallm import FundamentaLLMForCausalLM as FundamentaLLMForCausalLM
    from .modeling_fundamentallm import FundamentaLLMModel as FundamentaLLMModel
    from .repetition import WordRepetitionLogitsProcessor as WordRepetitionLogitsProcessor
    from .settings import GenerationSettings as GenerationSettings
    from .whole_text import WholeTextLogitsProcessor as WholeTextLogitsProcessor

    __version__: str

_HOME = {
    "Attribute": "attributes",
    "BadWordsLogitsProcessor": "bad_words",
    "Completion": "completion",
    "FundamentaLLMConfig": "configuration_fundamentallm",
    "FundamentaLLMForCausalLM": "modeling_fundamentallm",
    "FundamentaLLMModel": "modeling_fundamentallm",
    "GenerationSettings": "settings",
    "Generator": "generation",
    "GuidedAttributesLogitsProcessor": "guided_attributes",
    "UserError": "errors",
    "WholeTextLogitsProcessor": "whole_text",
    "WordRepetitionLogitsProcessor": "repetition",
    "controlled_generate": "any_model",
    "convert_checkpoint": "checkpoint",
    "evaluate": "evaluation",
    "load_model": "loading",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Looked up only when somebody asks, because that takes time which `--help` can do without.
        from importlib.metadata import version

        return version("fundamentallm-hf")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]


register_with_transformers()
