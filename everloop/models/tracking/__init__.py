"""Tracking and the registry as operations for people: tables of runs, editing in place, files, registered models."""
