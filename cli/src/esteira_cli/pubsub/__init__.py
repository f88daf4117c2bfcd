"""A strict Pub/Sub emulator: Google's gRPC API, durable state in SQLite, and push as Pub/Sub really does it."""
