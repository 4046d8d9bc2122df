"""The names of files of tensors next to a model's weights. Imports neither torch nor transformers."""

DRAFT_FILE = "draft.safetensors"
NEXT_WORDS_FILE = "next_words.safetensors"
# Files of tensors that are not the model's weights.
BESIDE_WEIGHTS = (DRAFT_FILE, NEXT_WORDS_FILE)
