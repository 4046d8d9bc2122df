"""Rewrites the cards of the bundled models from the models, and keeps the text between the generated parts.

    python model_cards/write.py

A test fails where a card and its model differ.
"""

from pathlib import Path

from fundamentallm_hf.model_io.loading import DEMO_MODEL
from fundamentallm_hf.publishing.model_card import card_for

CARDS = {Path(__file__).parent / "demo.md": DEMO_MODEL}

if __name__ == "__main__":
    for file, folder in CARDS.items():
        file.write_text(card_for(folder, existing=file.read_text(encoding="utf-8")), encoding="utf-8")
