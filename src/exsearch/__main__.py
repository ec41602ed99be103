"""`python -m exsearch` is the command `exsearch`."""

from exsearch.cli import main

main()
