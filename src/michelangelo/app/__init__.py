"""The composition root: settings, serve, the driver's entry point, the in-process platform."""
