"""This project's own networks; tuner's are tuner.models, so the names do not collide."""
