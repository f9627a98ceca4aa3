"""`python -m histill` is the command line."""

from histill.cli import main

main()
