"""What the box is, in a few lines for the operator: address, models with their proof, what is degraded, key."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from deployment.releases import current, verified

TIMEOUT = 10  # seconds
MODELS = (("embedding", "emb", "Embedding:"), ("reranker", "rerank", "Reranker:"))
WIDTH = 12
# The app itself, never a proxy that the environment may name.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def lines(root: Path, state: Path, models: Path, address: str) -> list[str]:
    """The recap's lines; `address` is what the box listens on, as HOST:PORT."""
    host, port = address.rsplit(":", 1)
    digest = current(root)
    where = f"http://{'VM' if host == '0.0.0.0' else host}:{port}"
    if host == "127.0.0.1":
        where += f"  (from your desk: ssh -L {port}:127.0.0.1:{port} VM)"
    key_file = state / "secrets" / "api_key"
    recap = [f"The box answers: {where}"]
    health, condition = _health("127.0.0.1" if host == "0.0.0.0" else host, port, key_file)
    recap += condition
    served = health.get("models")
    if not served:
        recap.append("What serves could not be asked; these are the models that the links name:")
    following = (health.get("generations") or {}).get("next")
    for kind, name, label in MODELS:
        link = models / name
        coming = following if kind == "embedding" else None
        recap += _served(served[kind], link, label, coming) if served else _model(link, link, label)
    recap.append(f"{'API key:':{WIDTH}}{key_file} (on the VM, as root)")
    recap.append(f"{'Search key:':{WIDTH}}{key_file.with_name('search_key')} (for the page; it may do nothing else)")
    recap.append(f"{'Deployment:':{WIDTH}}{digest}" + (", verified" if digest == verified(state) else ", NOT verified"))
    return recap


def _served(model: dict[str, Any] | None, link: Path, label: str, following: dict[str, Any] | None) -> list[str]:
    """What the app says that it computes with; None is a reranker that cannot serve.

    `following` is the generation that is to serve next, if there is one.
    """
    linked = Path(os.readlink(link)).name if link.is_symlink() else "nothing"
    if model is None:
        return [f"{label:{WIDTH}}none serves; {link} names {linked}"]
    if model["release"] is None:
        return [f"{label:{WIDTH}}{model['name'] or 'a stand-in'}, which is no release"]
    told = _model(link.parent / "releases" / model["release"], link, label)
    if following:
        told.append(f"{' ' * WIDTH}{following['summary']}")
    elif linked != model["release"]:
        told.append(f"{' ' * WIDTH}{model['release']} serves, though {link} names {linked}")
    return told


def _model(folder: Path, link: Path, label: str) -> list[str]:
    try:
        title, *notes = _proof(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{label:{WIDTH}}{folder}/manifest.json cannot be read ({error!r}): run playbooks/models.yml"]
    previous = link.with_name(f"{link.name}.previous")
    if previous.is_symlink():
        notes.append(f"previous release, for playbooks/rollback.yml: {Path(os.readlink(previous)).name}")
    return [f"{label:{WIDTH}}{title}", *(" " * WIDTH + note for note in notes)]


def _proof(manifest: dict[str, Any]) -> Iterator[str]:
    profile, recipe = manifest["profile"], manifest["recipe"]
    yield f"{profile['name']} ({profile['licence']}), {_size(manifest)}"
    yield from _figures(manifest)
    yield f"{recipe['name']}: {recipe['reason']}"


def _figures(manifest: dict[str, Any]) -> Iterator[str]:
    """A line a group: how near to the float original each result is, how near the order, how much faster."""
    gate, speed = manifest.get("gate") or {}, manifest.get("speed") or {}
    if "mean_cosine" in gate:
        yield f"cosine to its float original: mean {gate['mean_cosine']:.4f}, minimum {gate['cosine']:.4f}"
    if "mean_drift" in gate:
        yield f"drift from its float original's score: mean {gate['mean_drift']:.4f}, maximum {gate['drift']:.4f}"
    if order := _order(gate):
        yield order
    if "int8_ms" in speed:
        yield (
            f"time a text: {speed['int8_ms']:.1f} ms, float {speed['float_ms']:.1f} ms "
            f"({speed['int8_ms'] / speed['float_ms']:.2f} times)"
        )


def _order(gate: dict[str, Any]) -> str:
    parts = []
    if "top10_overlap" in gate:
        parts.append(f"top-10 overlap {gate['top10_overlap']:.3f}")
        if "top10_overlap_low" in gate:
            parts[0] += f" (95 %: {gate['top10_overlap_low']:.3f} to {gate['top10_overlap_high']:.3f})"
    if "top1_agreement" in gate:
        parts.append(f"same first result {gate['top1_agreement']:.3f}")
    if "spearman" in gate:
        parts.append(f"rank correlation {gate['spearman']:.3f}")
    if parts and "queries" in gate:
        parts.append(f"over {gate['queries']:.0f} held-out queries")
    if parts and (looks := gate.get("looks_at_held_out")):
        parts.append("looked at once" if looks == 1 else f"looked at {looks} times to choose the recipe")
    return ", ".join(parts)


def _size(manifest: dict[str, Any]) -> str:
    sizes = manifest["sizes"]
    float_mb = f"{sizes['float_bytes'] / 1e6:.0f} MB"
    if manifest["file"] == "model.onnx" or not sizes.get("int8_bytes"):
        return f"{float_mb}, float"
    return f"{sizes['int8_bytes'] / 1e6:.0f} MB INT8 (float {float_mb})"


def _health(host: str, port: str, key_file: Path) -> tuple[dict[str, Any], list[str]]:
    """The running app's /health, empty without an answer, and its condition in words, none while all is well."""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/health"
    try:
        keys = key_file.read_text(encoding="utf-8").split() if key_file.is_file() else []
        headers = {"authorization": f"Bearer {keys[0]}"} if keys else {}
        with _open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
            health = json.load(answer)
    except (OSError, HTTPException, ValueError) as error:
        return {}, [f"NO ANSWER from {url}: {error}"]
    if health["status"] == "ok":
        return health, []
    reasons = health.get("degraded") or ["/health says no more without the key"]
    return health, [f"{health['status'].upper()}: {reason}" for reason in reasons]
