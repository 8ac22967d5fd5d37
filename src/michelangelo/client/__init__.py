"""The verbs of the API, in process or over HTTP. Start at client.py, the protocol."""
