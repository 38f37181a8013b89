"""The composition root: settings -> an application -> a server."""

from retrieval.wiring.application import Ragstone
from retrieval.wiring.building import build, make_metrics
from retrieval.wiring.opener import RegistryOpener
from retrieval.wiring.serving import run_server

__all__ = ["Ragstone", "RegistryOpener", "build", "make_metrics", "run_server"]
