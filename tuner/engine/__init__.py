"""Engines: they start workers somewhere and watch them; `local` is this machine, `on_ray` a Ray cluster."""

from tuner.engine.ablating import Ablated, ablate
from tuner.engine.local import Watch, run
from tuner.engine.on_ray import Places, run_on_ray, serve_on_ray
from tuner.engine.serving import serve
from tuner.engine.submission import submit

__all__ = ["Ablated", "Places", "Watch", "ablate", "run", "run_on_ray", "serve", "serve_on_ray", "submit"]
