"""The API: every kind that the platform knows, by version. It holds schemas; behaviour is elsewhere."""
