"""``python -m sandbox_cli``."""

from .start import main

main()
