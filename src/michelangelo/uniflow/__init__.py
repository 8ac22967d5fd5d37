"""The SDK that users write pipelines with (re-exports come here)."""
