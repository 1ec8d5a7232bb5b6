"""Answers that come part by part: server-sent events from models whose predict yields."""
