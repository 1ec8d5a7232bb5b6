"""Readers, one a format; each gives the values of `importing.values` and writes nothing to what it reads."""
