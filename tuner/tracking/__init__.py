"""Tracking: a study is a parent run in MLflow, each of its trials a child run."""

from tuner.tracking.mlflow_tracker import MLflowTracker, TrackedReport

__all__ = ["MLflowTracker", "TrackedReport"]
