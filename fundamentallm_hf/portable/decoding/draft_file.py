"""The name of the file beside a model's weights that holds its drafts. Imports neither torch nor transformers."""

DRAFT_FILE = "draft.safetensors"
