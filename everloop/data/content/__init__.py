"""The content of tables: types by meaning, the identity of values, the order of rows, parts."""
