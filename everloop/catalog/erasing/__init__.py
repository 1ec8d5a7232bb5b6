"""A subject goes from what people and programs wrote into the catalog: texts, traces, payloads of facts, files."""
