"""Folders of files as dataset versions: one row for each file, the bytes in packs.

A version of a folder is an ordinary table with the key `path`, so that differences, expectations, profiles, lineage and
time travel are those of tables. The bytes lie in packs beside it (`packs`), found by the digest of their content.
"""
