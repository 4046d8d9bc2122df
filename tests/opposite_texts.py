"""Texts with an attribute and texts without it, from which guides are made."""

NAMES = "Tim", "Sue", "Ben", "Lily", "Mia", "Tom"
GLAD = [f"{name} was happy. {name} had fun and was very happy." for name in NAMES]
GRIM = [f"{name} was sad. {name} felt bad and was very sad." for name in NAMES]
