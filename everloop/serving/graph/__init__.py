"""Inference graphs: `nodes` are what authors write, `planning` makes parts of them, `running` answers with them."""
