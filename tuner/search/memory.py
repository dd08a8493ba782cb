"""Optuna's storage in memory, for a copy of a study that another storage keeps."""

from __future__ import annotations

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial


class Memory(InMemoryStorage):
    """Keeps trials without copying them deeply: whoever adds one must not change it afterwards."""

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a trial, running or as the template is; the answer is its id."""
        identity = super().create_new_trial(study_id)
        if template_trial is not None:
            template_trial.number = self.get_trial_number_from_id(identity)
            template_trial._trial_id = identity
            self._set_trial(identity, template_trial)
            self._update_cache(identity, study_id)
        return identity

    def count(self, study_id: int) -> int:
        """How many trials the study has; the number of the next."""
        return len(self._studies[study_id].trials)
