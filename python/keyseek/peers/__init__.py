"""The libraries keyseek is measured beside, each behind one small class.

A peer's own library is imported only when an index of it is built, in a process of its own
(see keyseek.peers.worker), so that thread pools and symbols of several cannot get in each
other's way.
"""

from __future__ import annotations

import importlib
import importlib.util

from .base import Peer

__all__ = ["PEERS", "Peer", "is_installed", "load_peer"]

# By the name on the command line: the module here, the class in it, the module of the library.
PEERS = {
    "faiss-flat": ("faiss_flat", "FaissFlat", "faiss"),
    "faiss-ivf": ("faiss_ivf", "FaissIvf", "faiss"),
    "faiss-hnsw": ("faiss_hnsw", "FaissHnsw", "faiss"),
    "hnswlib": ("hnswlib", "Hnswlib", "hnswlib"),
    "usearch": ("usearch", "Usearch", "usearch"),
    "scann": ("scann", "Scann", "scann"),
}


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(PEERS[name][2]) is not None


def load_peer(name: str) -> type[Peer]:
    module, class_name, _ = PEERS[name]
    found: type[Peer] = getattr(importlib.import_module(f"{__name__}.{module}"), class_name)
    return found
