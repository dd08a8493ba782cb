"""What every worker needs, imported once in the fork server."""

import tuner.data
import tuner.models
import tuner.service.shift
import tuner.service.worker  # noqa: F401
