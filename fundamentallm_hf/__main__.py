"""`python -m fundamentallm_hf` is the command `fundamentallm`."""

from .cli import main

main()
