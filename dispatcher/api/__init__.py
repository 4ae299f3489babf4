"""The HTTP API: one file a resource, listed in `app`."""
