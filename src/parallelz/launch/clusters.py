"""The clusters of a profile, by their files: which there are, and what ended ones left."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from parallelz import settings
from parallelz.errors import ClusterError
from parallelz.launch.cluster_file import ClusterFacts, locked, read, remove_files


class Found(NamedTuple):
    """What the cluster files of a profile say, and why some of them say nothing."""

    clusters: list[ClusterFacts]  # stale ones too
    errors: list[ClusterError]  # one for each file that does not tell of a cluster


class Cleaned(NamedTuple):
    """Of which clusters files were removed, and which files may be of clusters that run."""

    cluster_ids: list[str]
    errors: list[ClusterError]


def find(profile_dir: Path) -> Found:
    """Return what is written of the clusters of a profile, which need not exist."""
    found = Found([], [])
    for path in sorted((profile_dir / "security").glob("cluster*.json")):
        try:
            facts = read(path)
            if facts is not None:
                _check_name(path, profile_dir, facts)
                found.clusters.append(facts)
        except ClusterError as error:
            found.errors.append(error)
    return found


def _check_name(path: Path, profile_dir: Path, facts: ClusterFacts) -> None:
    # A copy tells of a cluster that had that id once; another one may have it now.
    if path != settings.cluster_file(profile_dir, facts.cluster_id):
        raise ClusterError(
            f"{path} is a copy of the file of another cluster, {facts.cluster_id!r}; remove it,"
            " or give it a name that does not begin with cluster"
        )


def clean(profile_dir: Path, *, force: bool = False) -> Cleaned:
    """Remove the files of clusters that ended without doing so themselves.

    Of a file that cannot be read nobody knows whether its cluster runs: it stays.

    Parameters
    ----------
    profile_dir
        Where to look; it need not exist.
    force
        Whether clusters on other hosts, of which nobody can tell, count as ended.
    """
    removed: list[str] = []
    errors: list[ClusterError] = []
    with contextlib.suppress(FileNotFoundError), locked(profile_dir):
        clusters, errors = find(profile_dir)
        for facts in clusters:
            if not facts.is_running or (force and not facts.is_local):
                remove_files(profile_dir, facts)
                removed.append(facts.cluster_id)
    return Cleaned(removed, errors)
