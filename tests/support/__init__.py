"""Modules that tests and the programs in tests/ import. They are found because tests/ is on the path of pytest."""
