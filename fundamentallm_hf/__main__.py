"""`python -m fundamentallm_hf` is the command `fundamentallm`."""

from fundamentallm_hf.cli.main import main

main()
