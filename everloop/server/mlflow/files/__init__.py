"""Artifacts over HTTP: the proxy, uploads in parts, and files that the gateway moves by itself."""
