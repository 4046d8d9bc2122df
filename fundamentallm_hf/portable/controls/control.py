"""Defines a control: a setting that this library applies to the text. `control_table.py` lists them all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..decoding.phases import Phase, is_given
from .setting import Setting

if TYPE_CHECKING:
    from ..decoding.call_processors import CallProcessors

Apply = Callable[["CallProcessors"], None]


@dataclass(frozen=True, kw_only=True)
class Control(Setting):
    """A setting that this library applies to the text.

    Attributes:
        field: its name in the generation config, if that differs: a field of transformers.
        stock: transformers has the field too, and applies it where this library does not.
        taken_over: the field is hidden from transformers, which would warn that it has no effect.
        any_model: it works with every causal language model, not only with FundamentaLLM models.
        refines: controls that it refines: without one of them it has no effect.
        reads_text: it works on text and needs the model's tokenizer.
        off_when: values of other fields with which it has no effect.
        shapes_text: it changes the text, other than by sampling or by length.
        phase: when its processor acts in a step; None where it has none.
        apply: adds its implementation to a call; None where the controls that it refines read it.
    """

    field: str = ""
    stock: bool = False
    taken_over: bool = False
    any_model: bool = True
    refines: tuple[str, ...] = ()
    reads_text: bool = False
    off_when: tuple[tuple[str, Any], ...] = ()
    shapes_text: bool = True
    phase: Phase | None = None
    apply: Apply | None = None

    @property
    def config_field(self) -> str:
        """Its name in the generation config."""
        return self.field or self.name

    def is_set(self, values: Mapping[str, Any]) -> bool:
        """Whether fields, by name, use this control."""
        value = values.get(self.config_field)
        if value == self.default or not is_given(value):
            return False
        return all(values.get(name) != off for name, off in self.off_when)
