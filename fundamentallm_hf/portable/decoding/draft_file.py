"""The name of the draft file next to a model's weights. Imports neither torch nor transformers."""

DRAFT_FILE = "draft.safetensors"
