"""The service: studies entered into the storage, workers that work on them, a courier that tracks them."""
