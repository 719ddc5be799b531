"""The run-time type check of the tests: beartype, with int accepted where float is written (PEP 484)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
