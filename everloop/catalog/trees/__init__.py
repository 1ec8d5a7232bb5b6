"""The catalog's side of folders of files: which packs there are."""
