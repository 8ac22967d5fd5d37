"""The engines: each knows one way to run a model, and nothing of jobs. Nothing is imported here: each is heavy."""
