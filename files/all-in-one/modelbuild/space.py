"""The embedding space: what makes vectors comparable. Models of one space can share an index."""

from typing import Any

from modelbuild.profile import Profile


def known_space(profile: Profile) -> dict[str, Any]:
    """The space as far as the profile tells; the revision of a model without a commit is null until it is fetched."""
    source = profile.source
    return {
        "repository": source["repository"] if source["type"] == "hub" else describe(source),
        "revision": source["revision"] if source["type"] == "hub" else None,
        "pooling": profile.pooling,
        "normalize": profile.normalize,
        "prefixes": profile.prefixes,
        "dimension": profile.dimension,
        "max_length": profile.max_length,
    }


def embedding_space(profile: Profile, weights_sha256: str) -> dict[str, Any]:
    """The space of a fetched model."""
    known = known_space(profile)
    return {**known, "revision": known["revision"] or weights_sha256}


def describe(source: dict[str, str]) -> str:
    """A source in a few words."""
    if source["type"] == "hub":
        return f"{source['repository']}@{source['revision'][:12]}"
    return f"{source['type']}:{source.get('path') or source.get('builder')}"
